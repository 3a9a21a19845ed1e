//! A message bus of one's own, and stand-ins for the services that a device has on its system bus.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::{fs, str};

use tempfile::TempDir;

/// Debian's own interpreter: another one that comes first in the path lacks Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// How long a program may take to join the bus, in seconds, on a machine that does much else.
const JOINS_WITHIN: &str = "60";

/// A peer that only is there.
const PEER: &str = "import sys, dbus.bus
bus = dbus.bus.BusConnection(sys.argv[1])
print(bus.get_unique_name(), flush=True)
sys.stdin.read()";

/// Ended with the value, by its process id.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A system bus that nobody else is on and where everybody may do everything. It ends when dropped.
#[derive(Debug)]
pub struct Bus {
    address: String,
    _daemon: Ended,
    _place: TempDir,
}

impl Bus {
    /// Starts one on which no name can be activated.
    pub fn start() -> Self {
        Self::with_services(&[])
    }

    /// Starts one that runs a command, as root, when somebody asks for its name.
    pub fn with_services(services: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        // Peers of other users must reach the socket.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.join("services")).unwrap();
        for (name, exec) in services {
            let text = format!("[D-BUS Service]\nName={name}\nExec={exec}\nUser=root\n");
            fs::write(dir.join(format!("services/{name}.service")), text).unwrap();
        }
        fs::write(dir.join("bus.conf"), configuration(dir)).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg(format!("--config-file={}/bus.conf", dir.display()));
        daemon.args(["--nofork", "--nopidfile", "--nosyslog", "--print-address"]);
        let mut daemon = piped(&mut daemon);
        // It prints its address when it listens there.
        let address = first_line(&mut daemon.0);
        Self {
            address,
            _daemon: daemon,
            _place: place,
        }
    }

    /// Where it listens; `DBUS_SYSTEM_BUS_ADDRESS` for a program that shall take it for the system's.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A program that takes this bus for the system's.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        command.env("DBUS_STARTER_ADDRESS", &self.address);
        command.env("DBUS_STARTER_BUS_TYPE", "system");
        command
    }

    /// Waits until a name has an owner.
    pub fn wait_for(&self, name: &str) {
        let mut wait = self.program("gdbus");
        wait.args(["wait", "--system", "--timeout", JOINS_WITHIN, name]);
        let waited = wait.output().unwrap();
        assert!(waited.status.success(), "{name} is not there: {waited:?}");
    }

    /// Calls a method with arguments in `GVariant`'s text form and returns the answer in that form.
    pub fn call(&self, name: &str, path: &str, method: &str, arguments: &[&str]) -> String {
        let answer = self.try_call(name, path, method, arguments);
        assert!(answer.status.success(), "{method} of {name}: {answer:?}");
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    /// The same for a call that may be answered with an error.
    pub fn try_call(&self, name: &str, path: &str, method: &str, arguments: &[&str]) -> Output {
        let mut call = self.program("gdbus");
        call.args(["call", "--system", "--dest", name, "--object-path", path]);
        // What follows `--` may begin with a dash, as a negative number does.
        call.args(["--method", method, "--"]).args(arguments);
        call.output().unwrap()
    }

    /// Somebody else on the bus, of that user, whom the system must know; none where that is not allowed, which only root is.
    pub fn peer(&self, user: u32) -> Option<Peer> {
        if !rustix::process::getuid().is_root() {
            eprintln!("not tested: only root may have peers of other users");
            return None;
        }
        let mut python = Command::new(PYTHON);
        python.args(["-c", PEER, &self.address]).uid(user);
        let mut child = piped(&mut python);
        let name = first_line(&mut child.0);
        Some(Peer {
            name,
            _child: child,
        })
    }
}

/// A process on the bus that does nothing until it is dropped.
#[derive(Debug)]
pub struct Peer {
    name: String,
    _child: Ended,
}

impl Peer {
    /// Its unique name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// One of python-dbusmock's stand-ins for a service. It leaves the bus when dropped.
#[derive(Debug)]
pub struct Mock<'a> {
    bus: &'a Bus,
    kind: &'static Kind,
    _child: Ended,
}

#[derive(Debug)]
struct Kind {
    template: &'static str,
    name: &'static str,
    object: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        template: "logind",
        name: "org.freedesktop.login1",
        object: "/org/freedesktop/login1",
    },
    Kind {
        template: "networkmanager",
        name: "org.freedesktop.NetworkManager",
        object: "/org/freedesktop/NetworkManager",
    },
    Kind {
        template: "polkitd",
        name: "org.freedesktop.PolicyKit1",
        object: "/org/freedesktop/PolicyKit1/Authority",
    },
    Kind {
        template: "upower",
        name: "org.freedesktop.UPower",
        object: "/org/freedesktop/UPower",
    },
];

impl<'a> Mock<'a> {
    /// Starts `logind`, `networkmanager`, `polkitd` or `upower` with parameters as JSON, `{}` for none,
    /// and waits until it owns its name.
    pub fn start(bus: &'a Bus, template: &str, parameters: &str) -> Self {
        let kind = KINDS.iter().find(|kind| kind.template == template);
        let kind = kind.unwrap_or_else(|| panic!("no stand-in is called `{template}`"));
        let mut python = bus.program(PYTHON);
        python.args(["-m", "dbusmock", "--system", "--template", template]);
        python.args(["--parameters", parameters]);
        let child = Ended(python.stdout(Stdio::null()).spawn().unwrap());
        bus.wait_for(kind.name);
        Self {
            bus,
            kind,
            _child: child,
        }
    }

    /// Calls a method of the template's own, such as `AddDischargingBattery`, and returns its answer.
    pub fn call(&self, method: &str, arguments: &[&str]) -> String {
        // The network manager's template has its own methods at an object above.
        let at = match self.kind.template {
            "networkmanager" => "/org/freedesktop",
            _ => self.kind.object,
        };
        self.mock(at, method, arguments)
    }

    /// Sets a property of the service's main object to a value such as `<uint32 1>` and tells
    /// everybody; makes it if the template lacks it.
    pub fn set(&self, interface: &str, name: &str, value: &str) {
        self.set_at(self.kind.object, interface, name, value);
    }

    /// The same for another object.
    pub fn set_at(&self, path: &str, interface: &str, name: &str, value: &str) {
        // Refused if it is there already.
        let add = "org.freedesktop.DBus.Mock.AddProperty";
        let property = [interface, name, value];
        self.bus.try_call(self.kind.name, path, add, &property);
        let set = "org.freedesktop.DBus.Properties.Set";
        self.bus.call(self.kind.name, path, set, &property);
    }

    /// Adds an object without methods.
    pub fn add(&self, path: &str, interface: &str, properties: &str) {
        let arguments = [path, interface, properties, "@a(ssss) []"];
        self.mock(self.kind.object, "AddObject", &arguments);
    }

    fn mock(&self, path: &str, method: &str, arguments: &[&str]) -> String {
        let method = format!("org.freedesktop.DBus.Mock.{method}");
        self.bus.call(self.kind.name, path, &method, arguments)
    }
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={dir}/socket</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{dir}/services</servicedir>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow send_type="signal"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#
    )
}

/// Starts a program whose input and output are ours.
fn piped(command: &mut Command) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ended(command.spawn().unwrap())
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "the program ended: {child:?}");
    line.trim().to_owned()
}

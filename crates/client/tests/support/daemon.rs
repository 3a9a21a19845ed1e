//! The real service on a bus of its own, called and listened to by `GLib`'s tools: another
//! implementation than ours, so that what is on the wire is proven from outside.

use std::process::{Child, Command, Output};

use system_image_testkit::{Bus, Device, Monitor};

const NAME: &str = "com.canonical.SystemImage";

/// The service and what it says.
pub(crate) struct Daemon<'a> {
    bus: &'a Bus,
    service: Child,
    monitor: Monitor,
}

impl<'a> Daemon<'a> {
    /// Starts it for a device.
    pub(crate) fn start(bus: &'a Bus, device: &Device) -> Self {
        let monitor = Monitor::of(bus, NAME);
        let service = command(bus, device).spawn().unwrap();
        bus.wait_for(NAME);
        Self {
            bus,
            service,
            monitor,
        }
    }

    /// Calls a method of the original's interface, which must answer.
    pub(crate) fn call(&self, method: &str, arguments: &[&str]) -> String {
        let method = format!("{NAME}.{method}");
        self.bus.call(NAME, "/Service", &method, arguments)
    }

    /// Calls a method of any interface.
    pub(crate) fn try_call(&self, method: &str, arguments: &[&str]) -> Output {
        self.bus.try_call(NAME, "/Service", method, arguments)
    }

    /// A property of our own interface.
    pub(crate) fn property(&self, name: &str) -> String {
        let get = "org.freedesktop.DBus.Properties.Get";
        let arguments = ["com.canonical.SystemImage1", name];
        self.bus.call(NAME, "/Service", get, &arguments)
    }

    /// The next signal of the original's interface, as `Name (arguments)`.
    pub(crate) fn signal(&self) -> String {
        self.monitor.signal("/Service", NAME)
    }

    /// The next line of the monitor with this in it.
    pub(crate) fn line_with(&self, text: &str) -> String {
        loop {
            let line = self.monitor.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The signals up to one of this name, it included.
    pub(crate) fn signals_until(&self, name: &str) -> Vec<String> {
        let mut signals = Vec::new();
        loop {
            let signal = self.signal();
            let found = signal.starts_with(&format!("{name} "));
            signals.push(signal);
            if found {
                return signals;
            }
        }
    }

    /// Waits until it has left; its exit status.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.service.wait().unwrap().code()
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) {
        self.service.kill().unwrap();
        self.service.wait().unwrap();
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// The service for a device, ready to start.
pub(crate) fn command(bus: &Bus, device: &Device) -> Command {
    let mut command = bus.program(env!("CARGO_BIN_EXE_system-image-dbus"));
    command.args(["-C", device.config().as_str()]);
    command.env("TZ", "UTC").env_remove("http_proxy");
    command
}

//! What `docs/serving.md` and `dist` say about other programs, tried with those programs where they
//! are installed.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::serving::{Answer, Serving, ask, until};
use support::{CHANNEL, DEVICE, Server};

/// Of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// nginx with the settings of the document.
fn nginx(server: &Server, program: &Path) -> (Running, String) {
    let text = fs::read_to_string(file("docs/serving.md")).unwrap();
    let (_, block) = text.split_once("```nginx\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let www = server.www();
    let block = block
        .replace("listen 80;", &format!("listen {address};"))
        .replace("/srv/images/www", www.to_str().unwrap());
    assert!(block.contains(&address) && block.contains(www.to_str().unwrap()));
    let place = server.place().join("nginx");
    fs::create_dir(&place).unwrap();
    let in_place = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", in_place(kind)))
        .concat();
    let log = in_place("error.log");
    let all = format!(
        "daemon off; master_process off; pid {}; error_log {log};\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{block}}}\n",
        in_place("pid")
    );
    fs::write(place.join("nginx.conf"), all).unwrap();
    let mut child = Command::new(program)
        .args(["-e", &log, "-c", &in_place("nginx.conf")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("nginx listens", || {
        let ended = child.try_wait().unwrap();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        assert!(ended.is_none(), "nginx ended: {}", said());
        TcpStream::connect(&address).is_ok()
    });
    (Running(child), address)
}

#[test]
fn nginx_with_the_documented_settings_serves_what_the_built_in_server_does() {
    let program = Path::new("/usr/sbin/nginx");
    if !program.exists() {
        eprintln!("nginx is not installed: skipped");
        return;
    }
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1")]));
    let www = server.www();
    fs::write(www.join("half.new"), "x").unwrap();
    let image = fs::read_dir(www.join("pool"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.strip_suffix(".tar.xz").is_some())
        .unwrap();
    // What another user has put there. Only root can make that, and only then it is tried.
    let foreign = www.join("foreign.json");
    symlink(www.join("channels.json"), &foreign).unwrap();
    let is_foreign = std::os::unix::fs::lchown(&foreign, Some(12345), None).is_ok();

    let (_running, theirs) = nginx(&server, program);
    let ours = Serving::start(&server, &[]);
    let both = |request: &str| -> [Answer; 2] {
        [ours.address(), &theirs].map(|address| ask(address, request))
    };
    let index = format!("/{CHANNEL}/{DEVICE}/index.json");
    for path in [
        "/channels.json",
        "/channels.json.asc",
        "/gpg/image-master.tar.xz",
        &index,
        &format!("{index}.asc"),
        &format!("/pool/{image}"),
        &format!("/pool/{image}.asc"),
    ] {
        let [ours, theirs] = both(&format!("GET {path} HTTP/1.1"));
        assert_eq!((ours.status(), theirs.status()), (200, 200), "{path}");
        assert!(ours.body == theirs.body, "{path}");
        for name in ["content-type", "content-length", "accept-ranges"] {
            assert_eq!(ours.header(name), theirs.header(name), "{path}");
        }
        let cached = ours.header("cache-control");
        assert_eq!(cached, theirs.header("cache-control"), "{path}");
        let is_image = path.ends_with(&image);
        assert_eq!(cached == Some("no-cache"), !is_image, "{path}");
        for answer in [ours, theirs] {
            assert!(answer.header("etag").unwrap().starts_with('"'));
        }
        let [ours, theirs] = both(&format!("GET {path} HTTP/1.1\r\nRange: bytes=1-7"));
        assert_eq!((ours.status(), theirs.status()), (206, 206));
        assert_eq!(ours.body, theirs.body);
    }
    for path in [
        "/",
        "/pool/",
        "/none.json",
        "/gpg/blacklist.tar.xz",
        "/half.new",
        "/.channels.json/now/channels.json",
        "/%2echannels.json/now/channels.json",
    ] {
        for answer in both(&format!("GET {path} HTTP/1.1")) {
            assert_eq!(answer.status(), 404, "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        }
    }
    if is_foreign {
        let refused = ask(&theirs, "GET /foreign.json HTTP/1.1").status();
        assert_eq!(refused, 403, "a link of another user");
    }
}

#[test]
fn the_unit_is_accepted_by_systemd() {
    let unit = file("dist/system-image-serve.service");
    let text = fs::read_to_string(&unit).unwrap();
    // The program is not installed where the unit expects it.
    let program = env!("CARGO_BIN_EXE_system-image-server");
    let here = text.replace("/usr/bin/system-image-server", program);
    assert_ne!(here, text);
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("system-image-serve.service");
    fs::write(&copy, here).unwrap();
    let verify = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&copy).output()
    };
    let Ok(output) = verify(&["verify", "--man=no"]) else {
        eprintln!("systemd-analyze is not installed: skipped");
        return;
    };
    let told = support::stderr(&output);
    assert!(output.status.success() && told.is_empty(), "{told}");
    // The lower the better; 9.6 is a unit without any of this.
    let output = verify(&["security", "--offline=yes", "--threshold=20"]).unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
}

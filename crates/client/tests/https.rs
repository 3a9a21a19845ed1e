//! Metadata over HTTPS: the server's certificate is checked against the system's roots, which are
//! read only then.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::{Ran, client};
use system_image_testkit::{Device, Keys, Published};

/// OpenSSL's own web server, stopped when dropped.
struct Secure {
    child: Child,
    port: String,
}

impl Secure {
    /// Serves a tree with a certificate for `name`, which it writes to the device's directory.
    fn start(device: &Device, tree: &Published<'_>, name: &str) -> Self {
        let (key, certificate) = (device.path("key.pem"), certificate(device));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-subj",
                "/CN=test",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-addext", &format!("subjectAltName={name}")])
            .args(["-keyout", key.as_str(), "-out", &certificate])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW"])
            .args(["-key", key.as_str(), "-cert", &certificate])
            .current_dir(tree.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
            .unwrap();
        Self { child, port }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn certificate(device: &Device) -> String {
    device.path("certificate.pem").into_string()
}

fn list_channels(device: &Device, roots: &str) -> Ran {
    let mut command = client(device);
    command.arg("--list-channels").env("SSL_CERT_FILE", roots);
    command.output().unwrap().into()
}

#[test]
fn a_server_must_show_a_certificate_for_its_name_that_the_system_trusts() {
    let keys = Keys::generate();
    // This server answers 200 for files that it has not.
    let tree = Published::new(&keys).blacklist(&[&keys.stranger]);
    let refused = "\ncaused by: The server's certificate is not trusted: https://127.0.0.1:";
    for (name, trusted, accepted) in [
        ("IP:127.0.0.1", true, true),
        ("IP:127.0.0.1", false, false),
        ("IP:127.0.0.2", true, false),
    ] {
        let device = Device::new(&keys);
        let server = Secure::start(&device, &tree, name);
        device.configure(
            "10_server.ini",
            &format!("[service]\nhttps_port: {}\n", server.port),
        );
        let roots = if trusted {
            certificate(&device)
        } else {
            "/dev/null".to_owned()
        };
        let ran = list_channels(&device, &roots);
        if accepted {
            assert_eq!(ran.out, "Available channels:\n    stable\n", "{}", ran.err);
        } else {
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{name}");
            assert!(ran.err.contains(refused), "{}", ran.err);
            assert!(ran.err.contains("ca-certificates"), "{}", ran.err);
        }
    }
}

#[test]
fn plain_http_reads_no_roots() {
    let keys = Keys::generate();
    let tree = Published::new(&keys);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    // Whoever opened this would wait for a writer for ever.
    let pipe = device.path("roots.pem");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let ran = list_channels(&device, pipe.as_str());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

//! Metadata over HTTPS: the server's certificate is checked against the system's roots, which are
//! read only then.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::process::Command;

use support::{Ran, client};
use system_image_testkit::{Device, Https, Keys, Published};

fn list_channels(device: &Device, roots: &str) -> Ran {
    let mut command = client(device);
    command.arg("--list-channels").env("SSL_CERT_FILE", roots);
    command.output().unwrap().into()
}

#[test]
fn a_server_must_show_a_certificate_for_its_name_that_the_system_trusts() {
    let keys = Keys::generate();
    // The server answers 200 for files that it has not.
    let tree = Published::new(&keys).blacklist(&[&keys.stranger]);
    let refused = "\ncaused by: The server's certificate is not trusted: https://127.0.0.1:";
    for (name, trusted, accepted) in [
        ("IP:127.0.0.1", true, true),
        ("IP:127.0.0.1", false, false),
        ("IP:127.0.0.2", true, false),
    ] {
        let device = Device::new(&keys);
        let place = device.path("tls");
        std::fs::create_dir(&place).unwrap();
        let server = Https::serve(tree.root(), &place, name, 0);
        device.configure(
            "10_server.ini",
            &format!("[service]\nhttps_port: {}\n", server.port()),
        );
        let roots = if trusted {
            server.certificate().to_string()
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

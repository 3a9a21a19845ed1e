//! The built-in web server with TLS and HTTP/2, spoken to by curl.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::Server;
use support::serving::{Serving, until};

/// A certificate of its own for 127.0.0.1, and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn new(server: &Server, name: &str) -> Self {
        let pair = Self {
            certificate: server.place().join(format!("{name}.crt")),
            key: server.place().join(format!("{name}.key")),
        };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(&pair.key)
            .arg("-out")
            .arg(&pair.certificate)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", support::stderr(&output));
        pair
    }

    fn options(&self) -> [&str; 4] {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| path.to_str().unwrap());
        ["--tls-cert", certificate, "--tls-key", key]
    }

    /// Puts this pair into the place of another one.
    fn replace(&self, other: &Self) {
        fs::copy(&self.certificate, &other.certificate).unwrap();
        fs::copy(&self.key, &other.key).unwrap();
    }
}

fn curl(arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20"])
        .args(arguments)
        .output()
        .unwrap()
}

fn url(address: &str) -> String {
    format!("https://{address}/channels.json")
}

/// Whether a client that trusts only this certificate is served.
fn trusts(serving: &Serving, certificate: &Path) -> bool {
    let trusted = certificate.to_str().unwrap();
    let url = url(serving.address());
    curl(&["--fail", "--cacert", trusted, &url])
        .status
        .success()
}

#[test]
fn both_protocols_are_spoken_with_tls_and_without() {
    let server = Server::new();
    let pair = Pair::new(&server, "one");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    fs::create_dir_all(server.www().join("pool")).unwrap();
    fs::write(server.www().join("pool/large.tar.xz"), &large).unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0"];
    let serving = Serving::start(&server, &[&ports[..], &pair.options()].concat());
    let trusted = pair.certificate.to_str().unwrap();
    let output = server.place().join("output");
    let to = output.to_str().unwrap();
    for (scheme, address, protocol, version) in [
        ("https", &serving.addresses[0], "--http1.1", "1.1"),
        ("https", &serving.addresses[0], "--http2", "2"),
        ("http", &serving.addresses[1], "--http1.1", "1.1"),
        (
            "http",
            &serving.addresses[1],
            "--http2-prior-knowledge",
            "2",
        ),
    ] {
        let url = format!("{scheme}://{address}/pool/large.tar.xz");
        let common = ["--cacert", trusted, protocol, "--output", to, &url];
        let told = ["--write-out", "%{http_version} %{http_code}"];
        let whole = curl(&[&common[..], &told].concat());
        let said = String::from_utf8_lossy(&whole.stdout).into_owned();
        assert_eq!(
            said,
            format!("{version} 200"),
            "{}",
            support::stderr(&whole)
        );
        assert!(fs::read(&output).unwrap() == large, "{url} with {protocol}");
        let part = curl(&[&common[..], &told, &["--range", "1000000-1999999"]].concat());
        let said = String::from_utf8_lossy(&part.stdout).into_owned();
        assert_eq!(said, format!("{version} 206"), "{}", support::stderr(&part));
        assert!(fs::read(&output).unwrap() == large[1_000_000..2_000_000]);
    }
}

#[test]
fn a_new_certificate_is_used_and_a_broken_one_is_not() {
    let server = Server::new();
    let (used, next) = (Pair::new(&server, "used"), Pair::new(&server, "next"));
    let serving = Serving::start(&server, &used.options());
    let first = server.place().join("first.crt");
    fs::copy(&used.certificate, &first).unwrap();
    assert!(trusts(&serving, &first));

    // Half of a renewal: the key does not fit.
    fs::copy(&next.certificate, &used.certificate).unwrap();
    serving.signal("HUP");
    fs::write(&used.key, "nonsense").unwrap();
    serving.signal("HUP");
    assert!(trusts(&serving, &first), "the old pair stays in use");

    next.replace(&used);
    // Without a signal.
    until("the new one is used", || {
        trusts(&serving, &next.certificate)
    });
    assert!(!trusts(&serving, &first));
    serving.signal("TERM");
    let told = support::stderr(&serving.ended());
    assert!(told.contains("the old certificate stays in use"), "{told}");
    assert!(told.contains("the new certificate is in use"), "{told}");
}

#[test]
fn what_cannot_be_used_for_tls_is_told() {
    let server = Server::new();
    let (one, two) = (Pair::new(&server, "one"), Pair::new(&server, "two"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (path(&one.certificate), path(&one.key));
    let listen = "https://127.0.0.1:0";
    for (arguments, said) in [
        (vec!["--listen", listen], "there is no certificate"),
        (vec!["--tls-cert", &certificate], "--tls-key"),
        (
            vec!["--tls-cert", &certificate, "--tls-key", &path(&two.key)],
            "cannot be used with the key",
        ),
        (
            vec!["--tls-cert", &key, "--tls-key", &key],
            "there is no certificate in",
        ),
        (
            vec!["--tls-cert", "/nonexistent", "--tls-key", &key],
            "cannot read `/nonexistent`",
        ),
    ] {
        let arguments = [&["serve"], &arguments[..]].concat();
        let output = server.command(&arguments).output().unwrap();
        assert!(!output.status.success());
        let told = support::stderr(&output);
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
}

#[test]
fn who_speaks_no_tls_is_dropped_and_others_are_served() {
    let server = Server::new();
    let pair = Pair::new(&server, "one");
    let options = ["--head-timeout", "0.3", "--metrics-listen", "127.0.0.1:0"];
    let serving = Serving::start(&server, &[&pair.options()[..], &options].concat());
    let silent = serving.connect();
    let plain = curl(&[&format!("http://{}/channels.json", serving.address())]);
    assert!(!plain.status.success());
    let line = "system_image_serve_connections_dropped_total{reason=\"handshake\"} 2";
    until("both are dropped", || serving.metrics().contains(line));
    assert!(trusts(&serving, &pair.certificate));
    drop(silent);
}

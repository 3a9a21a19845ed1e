//! A web server that speaks TLS: `OpenSSL`'s own, another implementation than ours.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

/// Serves a directory until it is dropped.
#[derive(Debug)]
pub struct Https {
    child: Child,
    port: String,
    certificate: Utf8PathBuf,
}

impl Https {
    /// Serves `root` with a new certificate for `name`, such as `IP:127.0.0.1`, which it writes to `place`.
    /// It was made so many years ago, for a year. This server answers 200 for files that it has not.
    pub fn serve(root: &Utf8Path, place: &Utf8Path, name: &str, years_ago: u32) -> Self {
        let (key, certificate) = (place.join("key.pem"), place.join("certificate.pem"));
        let made = Command::new("faketime")
            .args(["-f", &format!("-{years_ago}y"), "openssl", "req", "-x509"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "365", "-subj", "/CN=test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", &format!("subjectAltName={name}")])
            .args(["-keyout", key.as_str(), "-out", certificate.as_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW"])
            .args(["-key", key.as_str(), "-cert", certificate.as_str()])
            .current_dir(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
            .unwrap();
        Self {
            child,
            port,
            certificate,
        }
    }

    /// Its port on the loopback interface.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Utf8Path {
        &self.certificate
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

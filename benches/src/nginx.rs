//! The web server that others are measured with, and against.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use camino::Utf8Path;

/// Where programs are; a user's path often lacks the last two.
const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// nginx with one process, as fast as it can be set: files by `sendfile`, no log, connections
/// that stay open.
pub(crate) struct Nginx {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    pub(crate) fn start(place: &Utf8Path, www: &Utf8Path) -> anyhow::Result<Self> {
        fs::create_dir_all(place)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {place}/pid;\n\
             error_log {place}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n{temporary}\
             access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
             types {{ application/json json; }} default_type application/octet-stream;\n\
             server {{ listen {address}; root {www}; }}\n}}\n"
        );
        let configuration = place.join("nginx.conf");
        fs::write(&configuration, text)?;
        let program = find("nginx").context("`nginx` is missing")?;
        let child = Command::new(program)
            .args(["-e", &format!("{place}/error.log"), "-c"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let nginx = Self { child, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(
                started.elapsed() < Duration::from_secs(10),
                "nginx did not start: {}",
                fs::read_to_string(place.join("error.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let mut places = PLACES.iter().map(|place| Path::new(place).join(program));
    places.find(|path| path.exists())
}

//! The server's side of the journey.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::measure::{Cost, Step};

/// The channel of the journey.
pub const CHANNEL: &str = "24.04/stable";

/// Its device.
pub const DEVICE: &str = "tango";

/// A server's directory and the programs.
#[derive(Clone, Debug)]
pub struct Server {
    /// The server's directory.
    pub root: Utf8PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    program: Utf8PathBuf,
}

impl Server {
    /// Sets up a new server; `programs` is the directory of the built programs.
    pub fn set_up(
        root: &Utf8Path,
        programs: &Utf8Path,
        key_type: &str,
        compression_level: u32,
    ) -> anyhow::Result<(Self, Cost)> {
        // A port that is free now: version files carry it, so it must be known before.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let server = Self {
            root: root.to_owned(),
            address,
            program: programs.join("system-image-server"),
        };
        let (_, cost) = server
            .step(&["init", "--host", "127.0.0.1", "--key-type", key_type])?
            .args(["--http-port", &address.port().to_string()])
            .args(["--compression-level", &compression_level.to_string()])
            .succeed()?;
        server.run(&["channel", "create", CHANNEL])?;
        server.run(&["device", "add", CHANNEL, DEVICE])?;
        Ok((server, cost))
    }

    /// Has patches published beside deltas, for devices that have memory for them.
    pub fn make_patches(&self) -> anyhow::Result<()> {
        let settings = self.root.join("etc/config.d");
        fs::create_dir_all(&settings)?;
        let text = format!("[channel_{CHANNEL}]\npatch_memory = 84\n");
        Ok(fs::write(settings.join("channel.conf"), text)?)
    }

    fn step(&self, arguments: &[&str]) -> anyhow::Result<Step> {
        Ok(Step::new(&self.program)?
            .args(["--root", self.root.as_str()])
            .args(arguments))
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Cost> {
        Ok(self.step(arguments)?.succeed()?.1)
    }

    /// Publishes an archive as an image; returns the version.
    pub fn publish(&self, archive: &Utf8Path) -> anyhow::Result<(String, Cost)> {
        let (version, cost) = self
            .step(&["publish", CHANNEL, DEVICE, archive.as_str()])?
            .succeed()?;
        Ok((version.trim().to_owned(), cost))
    }

    /// Serves the tree until the returned guard is dropped.
    pub fn serve(&self) -> anyhow::Result<Serving> {
        self.serve_with(&[])
    }

    /// The same with more options of the command line.
    pub fn serve_with(&self, options: &[&str]) -> anyhow::Result<Serving> {
        let mut child = Command::new(&self.program)
            .args([
                "--root",
                self.root.as_str(),
                "serve",
                "--listen",
                &self.address.to_string(),
            ])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("serving") {
            let _ = child.kill();
            bail!("the server did not start: {line}");
        }
        Ok(Serving(child))
    }

    /// The published tree.
    pub fn www(&self) -> Utf8PathBuf {
        self.root.join("www")
    }

    /// Bytes of all payloads in the pool, signatures left out.
    pub fn payload_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for entry in self.www().join("pool").read_dir_utf8()? {
            let entry = entry?;
            if entry.path().extension() == Some("xz") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Checks with the tools that everybody has that what is published is what they accept.
    /// Returns the number of signatures checked.
    pub fn check_with_others(&self) -> anyhow::Result<usize> {
        let gpg = self.www().join("gpg");
        let keyring = |role: &str| self.root.join("state").join(format!("{role}.gpg"));
        for role in ["archive-master", "image-master", "image-signing"] {
            unpack_keys(&gpg.join(format!("{role}.tar.xz")), &keyring(role))?;
        }
        let mut signed = vec![
            ("archive-master", gpg.join("archive-master.tar.xz")),
            ("archive-master", gpg.join("image-master.tar.xz")),
            ("image-master", gpg.join("image-signing.tar.xz")),
            ("image-signing", self.www().join("channels.json")),
        ];
        for directory in [
            self.www().join("pool"),
            self.www().join(CHANNEL).join(DEVICE),
        ] {
            for entry in directory.read_dir_utf8()? {
                let path = entry?.path().to_owned();
                if matches!(path.extension(), Some("xz" | "json" | "patch")) && path.is_file() {
                    signed.push(("image-signing", path));
                }
            }
        }
        for (role, path) in &signed {
            if path.extension() == Some("xz") {
                quiet("xz", &["--test", path.as_str()])?;
                quiet("tar", &["--list", "--xz", "--file", path.as_str()])?;
            }
            let (keyring, signature) = (keyring(role), format!("{path}.asc"));
            quiet(
                "gpgv",
                &["--keyring", keyring.as_str(), &signature, path.as_str()],
            )?;
        }
        Ok(signed.len())
    }
}

fn unpack_keys(archive: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    let output = Command::new("tar")
        .args([
            "--extract",
            "--xz",
            "--to-stdout",
            "--file",
            archive.as_str(),
            "keyring.gpg",
        ])
        .output()?;
    fs::write(to, output.stdout)?;
    Ok(())
}

/// Runs another tool and shows what it said only if it failed.
pub fn quiet(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {}` failed: {}",
            arguments.join(" "),
            said.trim()
        );
    }
    Ok(())
}

/// A server that is running.
#[derive(Debug)]
pub struct Serving(Child);

impl Serving {
    /// The process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

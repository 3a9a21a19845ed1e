//! The user's first password, set inside the new system by its own tool.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use system_image_delta::Root;
use system_image_tree::links;

/// Files that the tool writes to, also as their own backups.
const WRITTEN: [&str; 8] = [
    "etc/passwd",
    "etc/passwd-",
    "etc/shadow",
    "etc/shadow-",
    "etc/group",
    "etc/group-",
    "etc/gshadow",
    "etc/gshadow-",
];

/// Sets the password of `user` in the system at `root`, which must be able to run on this CPU.
///
/// The password goes through a pipe: no shell sees it, no file holds it.
pub fn set(root: &Root, user: &str, password: &str) -> io::Result<()> {
    for path in WRITTEN {
        links::unshare(root, path)?;
    }
    // A descriptor of ours, by a name that another process can use.
    let place = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        root.as_fd().as_raw_fd()
    );
    let place = fs::read_link(&place).unwrap_or_else(|_| OsString::from(place).into());
    let mut child = Command::new("chroot")
        .arg(place)
        .arg("chpasswd")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let sent = pipe.write_all(format!("{user}:{password}\n").as_bytes());
    drop(pipe);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return sent;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<_> = said.split_whitespace().collect();
    Err(io::Error::other(format!(
        "`chpasswd` failed with {}: {}",
        output.status,
        said.join(" ")
    )))
}

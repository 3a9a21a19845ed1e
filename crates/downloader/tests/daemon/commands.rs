//! Commands that get a finished file: run for a user's own daemon, never for root's (specification,
//! sections 12 and 16).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, Place, command};

/// Nobody, whom every system has.
const NOBODY: u32 = 65534;

/// The daemon of somebody who is not root.
fn of_a_user(bus: &Bus, place: &Place) -> Command {
    let own = command(bus, place);
    if !rustix::process::geteuid().is_root() {
        return own;
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // A test's program may be where only root can go.
    let program = place.file("daemon");
    fs::copy(own.get_program(), &program).unwrap();
    let mut other = bus.program(program.as_str());
    other.args(own.get_args()).uid(NOBODY).gid(NOBODY);
    other
}

#[test]
fn root_runs_no_command() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: this is not root");
        return;
    }
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, b"x", "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let proof = place.file("proof");
    let metadata = format!("{{'post-download-command': <['touch', '{proof}']>}}");
    let path = daemon.create(&server.url("/x"), "", "", &metadata);
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "error");
    assert_eq!(signals.last().unwrap(), "error ('COMMAND ERROR',)");
    assert!(!proof.exists());
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_users_command_gets_the_file_and_then_it_is_gone() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, b"content", "\"1\""));
    let daemon = Daemon::with(&bus, of_a_user(&bus, &place));
    let copy = place.file("copy");
    let get = format!("{{'post-download-command': <['cp', '$file', '{copy}']>}}");
    let fail = "{'post-download-command': <['sh', '-c', 'echo out; echo err >&2; exit 7']>}";
    let missing = "{'post-download-command': <['/no/such/program', '$file']>}";
    let empty = "{'post-download-command': <@as []>}";
    let path = daemon.create(&server.url("/x"), "", "", &get);
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "finished");
    let file = place.downloads().join("x");
    let processing = format!("processing ('{file}',)");
    assert!(signals.contains(&processing), "{signals:?}");
    assert_eq!(fs::read(&copy).unwrap(), b"content");
    assert!(!file.exists());
    for (metadata, cause) in [
        (
            fail,
            "processError ((0, 'ErrorInProcess', 7, 'out\\n', 'err\\n'),)",
        ),
        (missing, "processError ((0, 'FailedToStart', 0, '', "),
        (
            empty,
            "processError ((0, 'FailedToStart', 0, '', 'the command is empty'),)",
        ),
    ] {
        let path = daemon.create(&server.url("/y"), "", "", metadata);
        daemon.call(&path, "start", &[]);
        let signals = daemon.until(&path, "error");
        let [.., told, last] = &signals[..] else {
            panic!("{signals:?}");
        };
        assert!(told.starts_with(cause), "{signals:?}");
        assert_eq!(last, "error ('COMMAND ERROR',)");
    }
}

#[test]
fn files_are_read_only_for_whoever_may_read_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: this is not root");
        return;
    }
    let (bus, place) = (Bus::start(), Place::new());
    let secret = place.file("secret");
    fs::write(&secret, "secret").unwrap();
    let daemon = Daemon::with(&bus, of_a_user(&bus, &place));
    // Root calls a daemon of somebody else.
    let request = format!("('file://{secret}', '', '', @a{{sv}} {{}}, @a{{ss}} {{}})");
    let method = "com.lomiri.applications.DownloadManager.createDownload";
    let refused = daemon.refused("/", method, &[&request]);
    assert!(refused.contains("AccessDenied"), "{refused}");
    drop(daemon);

    let daemon = Daemon::start(&bus, &place);
    let copy = place.file("copy");
    let path = daemon.fetch(&format!("file://{secret}"), &copy);
    daemon.call(&path, "start", &[]);
    daemon.until(&path, "finished");
    assert_eq!(fs::read(copy).unwrap(), b"secret");
}

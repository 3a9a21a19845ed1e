//! A program of the integrator's: here a shell script over a small file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use camino::Utf8PathBuf;
use system_image_slots::{BootControl, BootError, Script};
use tempfile::TempDir;

use crate::{Device, conforms, slot, slots, utf8};

const PROGRAM: &str = r#"#!/bin/sh
set -eu
state="${0%/*}/state"
. "$state"
put() { printf 'default=%s\ntrial=%s\nleft=%s\n' "$@" > "$state.new"; mv "$state.new" "$state"; }
case "$1" in
read) cat "$state" ;;
try-out) if [ "$2" = "$default" ]; then put "$default" '' ''; else put "$default" "$2" "$3"; fi ;;
confirm) put "$2" '' '' ;;
abandon) put "$default" '' '' ;;
check) ;;
*) echo "what is $1?" >&2; exit 2 ;;
esac
"#;

struct Emulated {
    dir: TempDir,
    script: Script,
}

fn program(dir: &Path, text: &str) -> Utf8PathBuf {
    let path = utf8(dir).join("boot-control");
    // A fork of another test may hold a file open that is still written here; nobody holds this one.
    let staged = path.with_extension("new");
    fs::write(&staged, text).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&staged, &path).unwrap();
    path
}

impl Device for Emulated {
    fn control(&self) -> &dyn BootControl {
        &self.script
    }

    fn boot(&mut self) -> String {
        let state = self.dir.path().join("state");
        let text = fs::read_to_string(&state).unwrap();
        let value = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.unwrap().to_owned()
        };
        let (default, trial, left) = (value("default="), value("trial="), value("left="));
        match left.parse::<u8>() {
            Ok(tries @ 1..) => {
                let left = tries - 1;
                fs::write(
                    &state,
                    format!("default={default}\ntrial={trial}\nleft={left}\n"),
                )
                .unwrap();
                trial
            }
            _ => default,
        }
    }
}

#[test]
fn a_program_of_the_integrators() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state"), "default=a\ntrial=\nleft=\n").unwrap();
    let script = Script::new(program(dir.path(), PROGRAM), slots(&["a", "b"]));
    conforms(&mut Emulated { dir, script });
}

#[test]
fn a_program_that_does_not_do_its_work_is_told_on() {
    let dir = tempfile::tempdir().unwrap();
    let says = |text: &str| {
        let path = program(dir.path(), &format!("#!/bin/sh\n{text}\n"));
        Script::new(path, slots(&["a", "b"]))
    };
    for answer in [
        "true",
        "echo default=c",
        "echo default=a; echo trial=b",
        "echo default=a; echo trial=b; echo left=256",
        "echo default=a; echo trial=c; echo left=1",
        "printf 'default=\\377'",
    ] {
        let error = says(answer).read().unwrap_err();
        assert!(
            matches!(error, BootError::Answer { .. }),
            "{answer}: {error:?}"
        );
    }
    let error = says("echo the flash is locked >&2; exit 4")
        .confirm(&slot("a"))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("confirm a` failed, exit status: 4: the flash is locked"),
        "{error}"
    );
    let gone = Script::new(utf8(dir.path()).join("nothing"), slots(&["a", "b"]));
    assert!(matches!(gone.check().unwrap_err(), BootError::Run { .. }));
}

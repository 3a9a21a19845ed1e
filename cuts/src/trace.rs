//! Lists the calls that a program makes, and disturbs one of them, by `strace`.
//!
//! Only the upgrader's own thread is traced, or one program that it starts: `strace` counts the
//! calls of each task by itself, so a call's name and number say which one it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};

use crate::device::Device;
use crate::lab::Lab;

/// Calls that change what is on a device. `?` makes `strace` accept the names of other kernels and
/// machines.
const CHANGES: &str = "?write,?writev,?pwrite64,?pwritev,?pwritev2,?copy_file_range,?sendfile,\
    ?splice,?truncate,?ftruncate,?fallocate,?rename,?renameat,?renameat2,?link,?linkat,?symlink,\
    ?symlinkat,?unlink,?unlinkat,?rmdir,?mkdir,?mkdirat,?mknod,?mknodat,?chmod,?fchmod,?fchmodat,\
    ?fchmodat2,?chown,?fchown,?lchown,?fchownat,?utimensat,?setxattr,?lsetxattr,?fsetxattr,\
    ?removexattr,?lremovexattr,?fremovexattr,?fsync,?fdatasync,?sync,?syncfs,?sync_file_range,\
    ?mount,?umount2,?fsopen,?fsconfig,?fsmount,?move_mount,?open_tree,?mount_setattr,?ioctl";

/// Calls that may create a file.
const OPENS: &str = "?open,?openat,?openat2,?creat";

/// Calls that only look, and can fail.
const LOOKS: &str = "?read,?readv,?pread64,?preadv,?lseek,?stat,?lstat,?fstat,?newfstatat,?statx,\
    ?statfs,?fstatfs,?getdents64,?readlink,?readlinkat,?getxattr,?lgetxattr,?fgetxattr,?listxattr,\
    ?llistxattr,?flistxattr,?access,?faccessat,?faccessat2,?flock";

/// Calls around which another program works.
const WAITS: &str = "?fork,?clone,?clone3,?vfork,?poll,?ppoll,?wait4,?waitid";

/// What `strace` says of a program that it killed.
const KILLED: &str = "+++ killed by SIGKILL";

/// What it says of a call that it made fail.
const FAILED: &str = "(INJECTED)";

/// The programs that an upgrader starts.
const HELPERS: [&str; 2] = ["mkfs.ext4", "e2fsck"];

/// What stands in for a helper: traces it if it is the one that is asked for. Asked for its
/// version it does nothing, and nothing is done to it.
const STAND_IN: &str = "#!/bin/sh\n\
    PATH=$CUTS_PATH\n\
    [ \"$1\" != -V ] && [ \"$CUTS_HELPER\" = NAME ] && exec strace $CUTS_STRACE NAME \"$@\"\n\
    exec NAME \"$@\"\n";

/// Whose calls are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The upgrader's own.
    Upgrader,
    /// Those of a program that it starts.
    Helper(&'static str),
}

impl Program {
    /// All whose calls are disturbed.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let helpers = HELPERS.into_iter().map(Self::Helper);
        [Self::Upgrader].into_iter().chain(helpers)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Upgrader => "system-image-upgrader",
            Self::Helper(name) => name,
        }
    }
}

/// A call that a program makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    program: Program,
    name: String,
    /// Which of the calls with this name, from 1.
    nth: u32,
    pub(crate) effect: Effect,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The device is another one after it.
    Changes,
    /// It only looks, or talks.
    Looks,
    /// Another program works meanwhile.
    Waits,
}

/// What happens instead of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The program is killed before it.
    Kill,
    /// It fails with this error.
    Error(&'static str),
}

/// A call, and what happens instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disturbance {
    pub(crate) call: Call,
    pub(crate) fault: Fault,
}

impl std::fmt::Display for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Call {
            program, name, nth, ..
        } = &self.call;
        let program = program.name();
        match self.fault {
            Fault::Kill => write!(f, "{program} killed at {name} number {nth}"),
            Fault::Error(error) => write!(f, "{error} from {name} number {nth} of {program}"),
        }
    }
}

/// Makes the programs that stand in for the helpers.
pub(crate) fn set_up(lab: &Lab) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = stand_ins(lab);
    fs::create_dir(&directory)?;
    for helper in HELPERS {
        let path = directory.join(helper);
        fs::write(&path, STAND_IN.replace("NAME", helper))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn stand_ins(lab: &Lab) -> PathBuf {
    lab.place("helpers")
}

/// Runs the upgrader undisturbed and lists the calls of one program.
pub(crate) fn calls(lab: &Lab, device: &Device, program: Program) -> anyhow::Result<Vec<Call>> {
    let log = device.recovery.settings().with_extension("calls");
    let _ = fs::remove_file(&log);
    let all = format!("-etrace={CHANGES},{OPENS},{LOOKS},{WAITS}");
    let output = traced(lab, device, program, &log, &[&all])?;
    ensure!(
        output.status.success(),
        "undisturbed, the upgrader failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A helper that is not needed is not started.
    let text = fs::read_to_string(&log).unwrap_or_default();
    // What a loader does before is no part of the upgrader.
    let begins = match program {
        Program::Upgrader => "upgrader.toml",
        Program::Helper(_) => "/dev/loop",
    };
    Ok(listed(&text, program, begins))
}

/// The calls of a trace from the first one that has `begins` among its arguments, up to the end of
/// the first process.
fn listed(trace: &str, program: Program, begins: &str) -> Vec<Call> {
    let mut counts = std::collections::HashMap::new();
    let mut begun = false;
    let mut calls = Vec::new();
    for line in trace.lines().take_while(|line| !line.starts_with("+++")) {
        let Some((name, arguments)) = line.split_once('(') else {
            continue;
        };
        if name.starts_with("---") {
            continue;
        }
        let nth = counts.entry(name).or_insert(0);
        *nth += 1;
        begun |= arguments.contains(begins);
        let Some(effect) = effect(name, arguments).filter(|_| begun) else {
            continue;
        };
        calls.push(Call {
            program,
            name: name.to_owned(),
            nth: *nth,
            effect,
        });
    }
    calls
}

/// What a call does; none for what comes through a pipe from a program that was started: there is
/// no disk that could fail, and the device stays as it is.
fn effect(name: &str, arguments: &str) -> Option<Effect> {
    let is_in = |set: &str| set.split(',').any(|of_set| &of_set[1..] == name);
    // Whether a recovery shows our output or stores it on a disk that may be full is not known.
    let is_output = arguments.starts_with("1<") || arguments.starts_with("2<");
    if is_in(WAITS) {
        Some(Effect::Waits)
    } else if is_output {
        Some(Effect::Looks)
    } else if arguments.contains("<pipe:") {
        None
    } else if is_in(CHANGES) || (is_in(OPENS) && arguments.contains("O_CREAT")) {
        Some(Effect::Changes)
    } else {
        Some(Effect::Looks)
    }
}

/// Runs the upgrader and disturbs a call. `None` if that call did not come: what a program says
/// through a pipe comes in more or fewer parts, and so the number may be that of such a part.
pub(crate) fn disturbed(
    lab: &Lab,
    device: &Device,
    Disturbance { call, fault }: &Disturbance,
) -> anyhow::Result<Option<Output>> {
    let Call { name, nth, .. } = call;
    let (what, shown) = match fault {
        Fault::Kill => ("signal=KILL".to_owned(), KILLED),
        Fault::Error(error) => (format!("error={error}"), FAILED),
    };
    let inject = format!("-einject={name}:{what}:when={nth}");
    let log = device.recovery.settings().with_extension("disturbed");
    let _ = fs::remove_file(&log);
    let trace = format!("-etrace={name}");
    let output = traced(lab, device, call.program, &log, &[&trace, &inject])?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let came = text.lines().any(|line| {
        let through_pipe = || {
            line.split_once('(')
                .is_some_and(|(name, arguments)| effect(name, arguments).is_none())
        };
        line.contains(shown) && !through_pipe()
    });
    Ok(came.then_some(output))
}

fn traced(
    lab: &Lab,
    device: &Device,
    program: Program,
    log: &Path,
    options: &[&str],
) -> anyhow::Result<Output> {
    let log = log.to_str().context("the lab's path is text")?;
    let upgrader = device.recovery.program();
    let options = [&["-q", "-y", "-A", "-o", log], options].concat();
    let mut command;
    match program {
        Program::Upgrader => {
            command = Command::new("strace");
            command.args(options).arg(upgrader.get_program());
        }
        Program::Helper(name) => {
            let path = std::env::var("PATH").unwrap_or_default();
            let stand_ins = stand_ins(lab);
            command = Command::new(upgrader.get_program());
            command
                .env("PATH", format!("{}:{path}", stand_ins.display()))
                .env("CUTS_PATH", path)
                .env("CUTS_HELPER", name)
                .env("CUTS_STRACE", options.join(" "));
        }
    }
    let output = command.args(upgrader.get_args()).output();
    output.with_context(|| format!("cannot run {command:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_told_by_what_they_do() {
        let trace = "openat(AT_FDCWD</>, \"/lib/libc.so\", O_RDONLY) = 3</lib/libc.so>\n\
            read(3</lib/libc.so>, \"...\", 10) = 10\n\
            openat(AT_FDCWD</>, \"/etc/upgrader.toml\", O_RDONLY) = 3</etc/upgrader.toml>\n\
            read(3</etc/upgrader.toml>, \"(\", 10) = 1\n\
            --- SIGCHLD {si_signo=SIGCHLD} ---\n\
            poll([{fd=5<pipe:[7]>, events=POLLIN}], 1, -1) = 1\n\
            read(5<pipe:[7]>, \"\", 32) = 0\n\
            openat(AT_FDCWD</>, \"/x\", O_WRONLY|O_CREAT, 0666) = 4</x>\n\
            write(2<pipe:[8]>, \"said\", 4) = 4\n\
            write(4</x>, \"written\", 7) = 7\n\
            +++ exited with 0 +++\n\
            write(4</x>, \"of another process\", 7) = 7\n";
        let calls = listed(trace, Program::Upgrader, "upgrader.toml");
        let seen: Vec<_> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.nth, call.effect))
            .collect();
        assert_eq!(
            seen,
            [
                ("openat", 2, Effect::Looks),
                ("read", 2, Effect::Looks),
                ("poll", 1, Effect::Waits),
                ("openat", 3, Effect::Changes),
                ("write", 1, Effect::Looks),
                ("write", 2, Effect::Changes),
            ]
        );
    }
}

//! A device with a tree around it that nothing may touch.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use system_image_testkit::tree::{Snapshot, Tree, What, differences, snapshot};
use system_image_testkit::{Keys, Recovery, SmallDisk};
use tempfile::TempDir;

use crate::case::{Case, End, Is};
use crate::{BYTES, MEMBERS};

/// What the program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Usual,
    /// One before 5.6, as `strace` makes it look.
    WithoutOpenat2,
}

/// The device, and what is around it.
pub(crate) struct Lab {
    /// In memory for root: hundreds of updates are on the disk before they end.
    _disk: Option<SmallDisk>,
    place: TempDir,
    device: Recovery,
    kernel: Kernel,
    is_direct: bool,
    /// The drop box of the good update, which is left there again and again.
    good: Vec<(String, Vec<u8>)>,
    installed: Snapshot,
    around: Snapshot,
}

/// The system that the archives are laid over.
fn base() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .dir("outside")
        .file("outside/kept", "kept")
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/x", "x")
        .symlink("lib", "usr/lib")
        .symlink("out", "/outside")
}

impl Lab {
    pub(crate) fn new(way: &str, kernel: Kernel) -> Self {
        let place = tempfile::tempdir().unwrap();
        let disk = is_root()
            .then(|| SmallDisk::mount(place.path(), "256m"))
            .flatten();
        let program = env!("CARGO_BIN_EXE_system-image-upgrader");
        let device = Recovery::at(&place.path().join("device"), program, Keys::generate());
        device.configure(&format!(
            "directory = {:?}\nway = {way:?}\n[partitions]\nboot = {:?}\ngone = \"/nowhere\"\n\
             [limits]\narchive_bytes = {BYTES}\narchive_members = {MEMBERS}",
            device.system(),
            device.path("boot"),
        ));
        // Wherever a path climbs to, there is something to find.
        let above = ["", "device/", "device/storage/", "device/storage/cache/"];
        for directory in above.map(|above| place.path().join(above).join("outside")) {
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("kept"), "kept").unwrap();
        }
        let mut lab = Self {
            _disk: disk,
            place,
            device,
            kernel,
            is_direct: way == "direct",
            good: Vec::new(),
            installed: Snapshot::new(),
            around: Snapshot::new(),
        };
        lab.device.full(&base());
        let read = |name: String| {
            let content = fs::read(lab.drop_box().join(&name)).unwrap();
            (name, content)
        };
        lab.good = lab.device.dropped().into_iter().map(read).collect();
        lab.renew().unwrap();
        lab.lay_out();
        lab.installed = snapshot(&lab.device.system());
        lab.around = lab.look_around();
        lab
    }

    /// Runs one case; what went wrong.
    pub(crate) fn run(&self, case: &Case) -> Result<(), String> {
        if case.needs_root && !is_root() {
            return Ok(());
        }
        self.lay_out();
        let (device, before) = (&self.device, self.look_inside());
        self.drop_good();
        let command = fs::read_to_string(device.command_file()).unwrap();
        let keyrings = command.split_inclusive('\n');
        let keyrings = keyrings.filter(|line| line.starts_with("load_keyring"));
        let keyrings: String = keyrings.collect();
        device.drop_signed("x.tar.xz", &case.tarball, &device.keys.image_signing);
        device.command(&format!(
            "{keyrings}mount system\nupdate x.tar.xz x.tar.xz.asc\n"
        ));
        let output = self.upgrade();
        let ended = self.is_as_expected(case, &output, &before);
        let around = differences(&self.look_around(), &self.around);
        let around = around.map_or(Ok(()), |changes| Err(format!("outside: {changes}")));
        let renewed = self.renew().and_then(|()| {
            let installed = snapshot(&device.system());
            differences(&installed, &self.installed).map_or(Ok(()), Err)
        });
        let renewed = renewed.map_err(|error| format!("the next update: {error}"));
        ended.and(around).and(renewed)
    }

    fn is_as_expected(
        &self,
        case: &Case,
        output: &Output,
        before: &Snapshot,
    ) -> Result<(), String> {
        let log = is_printable(&output.stderr)?;
        is_printable(&output.stdout)?;
        let after = self.look_inside();
        let code = output.status.code();
        let is_refused = |words: &str| match code {
            Some(1) if log.contains(words) => differences(&after, before).map_or(Ok(()), Err),
            _ => Err(format!("{code:?} without `{words}`: {log}")),
        };
        let is_well = || match code {
            Some(0) => Ok(()),
            _ => Err(format!("{code:?}: {log}")),
        };
        match &case.end {
            End::Unfit(words) if self.is_direct => match code {
                Some(3) if log.contains(words) => Ok(()),
                _ => Err(format!("{code:?} without `{words}`: {log}")),
            },
            End::Refused(words) | End::Unfit(words) => is_refused(words),
            End::Applied(there) => is_well().and_then(|()| {
                there
                    .iter()
                    .try_for_each(|(path, is)| is_there(&self.device.path(path), *is))
            }),
            End::LikeTar => is_well().and_then(|()| self.is_like_tar(case)),
            End::Confined if code == Some(1) => differences(&after, before).map_or(Ok(()), Err),
            End::Confined if code == Some(3) && !self.is_direct => Err(log),
            End::Confined => Ok(()),
        }?;
        if code == Some(3) {
            return Ok(());
        }
        let staging =
            ["data", "cache/system"].map(|top| self.device.path(top).join(".system-image"));
        match staging.iter().find(|path| path.exists()) {
            Some(left) => Err(format!("{} is left", left.display())),
            None => Ok(()),
        }
    }

    /// Unpacks the archive over the same system by GNU tar. Where directories were changed last is not
    /// compared: an update leaves no time of its own.
    fn is_like_tar(&self, case: &Case) -> Result<(), String> {
        let place = tempfile::tempdir().unwrap();
        for archive in [&base().tar(), case.archive.as_ref().unwrap()] {
            let file = place.path().join("tar");
            fs::write(&file, archive).unwrap();
            let mut tar = Command::new("tar");
            tar.args([
                "--extract",
                "--preserve-permissions",
                "--numeric-owner",
                "--keep-directory-symlink",
            ]);
            tar.arg("--file")
                .arg(&file)
                .arg("--directory")
                .arg(place.path());
            let output = tar.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {said}", case.name);
        }
        let without_times = |mut seen: Snapshot| {
            for seen in seen
                .values_mut()
                .filter(|seen| seen.what == What::Directory)
            {
                seen.mtime = (0, 0);
            }
            seen
        };
        let want = without_times(snapshot(&place.path().join("system")));
        let got = without_times(snapshot(&self.device.system()));
        differences(&got, &want).map_or(Ok(()), |changes| Err(format!("not like tar: {changes}")))
    }

    fn upgrade(&self) -> Output {
        let program = self.device.program();
        if self.kernel == Kernel::Usual {
            return self.device.upgrade();
        }
        let trace = self.drop_box().join("trace");
        let mut strace = Command::new("strace");
        strace.args([
            "--follow-forks",
            "--seccomp-bpf",
            "--quiet=all",
            "--trace=openat2",
        ]);
        strace
            .arg("--inject=openat2:error=ENOSYS")
            .arg("--output")
            .arg(&trace);
        let output = strace
            .arg(program.get_program())
            .args(program.get_args())
            .output()
            .unwrap();
        let traced = fs::read_to_string(trace).unwrap();
        let calls = traced.lines().filter(|line| line.contains("openat2("));
        let mut calls = calls.filter(|line| !line.contains("INJECTED"));
        assert_eq!(calls.next(), None, "this kernel still has the call");
        output
    }

    /// User data and the partition as they are before each case.
    fn lay_out(&self) {
        let data = self.device.path("data");
        for entry in fs::read_dir(&data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        fs::write(data.join("own"), "own").unwrap();
        fs::create_dir(data.join("outside")).unwrap();
        fs::write(data.join("outside/kept"), "kept").unwrap();
        symlink("../outside", data.join("theirs")).unwrap();
        fs::write(
            self.device.path("boot"),
            [b"old".as_slice(), &[0; 4093]].concat(),
        )
        .unwrap();
    }

    fn drop_box(&self) -> PathBuf {
        self.device.path("cache/recovery")
    }

    fn drop_good(&self) {
        for (name, content) in &self.good {
            self.device.drop_file(name, content);
        }
    }

    /// Installs the good system once more.
    fn renew(&self) -> Result<(), String> {
        self.drop_good();
        let output = self.device.upgrade();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The system, user data and the partition.
    fn look_inside(&self) -> Snapshot {
        let mut seen = Snapshot::new();
        for top in ["cache/system", "data"] {
            let below = snapshot(&self.device.path(top)).into_iter();
            seen.extend(below.map(|(path, found)| ([top.as_bytes(), b"/", &path].concat(), found)));
        }
        // Something waits there meanwhile.
        if let Some(data) = seen.get_mut(&b"data/"[..]) {
            data.mtime = (0, 0);
        }
        let boot = snapshot(&self.device.path("boot"));
        seen.extend(boot.into_values().map(|found| (b"boot".to_vec(), found)));
        seen
    }

    /// Everything else, but for what the client and the upgrader leave for each other.
    fn look_around(&self) -> Snapshot {
        let storage = self.device.storage();
        let storage = storage.strip_prefix(self.place.path()).unwrap();
        let ours = [
            "cache/system",
            "cache/recovery",
            "cache/system-image-result.json",
            "data",
            "boot",
        ];
        let ours: Vec<PathBuf> = ours.iter().map(|path| storage.join(path)).collect();
        let mut seen = snapshot(self.place.path());
        seen.retain(|path, _| {
            let path =
                Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
            !ours.iter().any(|ours| path.starts_with(ours))
        });
        // The result is replaced in it.
        let cache = storage.join("cache");
        let cache = std::os::unix::ffi::OsStrExt::as_bytes(cache.as_os_str());
        if let Some(cache) = seen.get_mut(cache) {
            cache.mtime = (0, 0);
        }
        seen
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_there(path: &Path, is: Is) -> Result<(), String> {
    let found = path.symlink_metadata();
    let kind = found.as_ref().ok().map(fs::Metadata::file_type);
    let fits = match (is, kind) {
        (Is::Nothing, None) => true,
        (Is::File(start), Some(kind)) if kind.is_file() => {
            fs::read(path).is_ok_and(|content| content.starts_with(start))
        }
        (Is::Link(target), Some(kind)) if kind.is_symlink() => {
            fs::read_link(path).is_ok_and(|found| found == Path::new(target))
        }
        (Is::Directory, Some(kind)) => kind.is_dir(),
        (Is::BlockDevice, Some(kind)) => kind.is_block_device(),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(format!("{} is not {is:?} but {found:?}", path.display()))
}

/// Text, for a terminal.
fn is_printable(bytes: &[u8]) -> Result<String, String> {
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    match text.chars().find(|c| c.is_control() && *c != '\n') {
        Some(control) => Err(format!("{control:?} is printed: {text:?}")),
        None => Ok(text.to_owned()),
    }
}

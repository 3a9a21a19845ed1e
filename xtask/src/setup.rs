//! What the tests, the demo and the benchmarks need from Debian.

use std::path::Path;
use std::process::Command;

use crate::steps::Failed;

/// Programs and the packages that have them.
const NEEDED: [(&str, &str); 43] = [
    ("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
    ("aria2c", "aria2"),
    ("busctl", "systemd"),
    ("busybox", "busybox-static"),
    ("c++", "g++"),
    ("cc", "gcc"),
    ("cpio", "cpio"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus"),
    ("debugfs", "e2fsprogs"),
    ("faketime", "faketime"),
    ("fw_setenv", "libubootenv-tool"),
    ("gdbus", "libglib2.0-bin"),
    ("gpg", "gnupg"),
    ("gpgv", "gpgv"),
    ("getfattr", "attr"),
    ("grub-mkimage", "grub-common"),
    ("lomiri-download-manager", "lomiri-download-manager"),
    ("losetup", "mount"),
    ("lz4", "lz4"),
    ("mformat", "mtools"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mksquashfs", "squashfs-tools"),
    ("mmdebstrap", "mmdebstrap"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("pkg-config", "pkg-config"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("resize2fs", "e2fsprogs"),
    ("rsync", "rsync"),
    ("setcap", "libcap2-bin"),
    ("strace", "strace"),
    ("tar", "tar"),
    ("wrk", "wrk"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    // Boot loaders and firmware for virtual machines.
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin"),
    (
        "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        "systemd-boot-efi",
    ),
    ("/usr/lib/u-boot/qemu-x86/u-boot.rom", "u-boot-qemu"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "ovmf"),
    // Headers, for a client of the download service that others have written.
    (
        "/usr/include/lomiri/download_manager/manager.h",
        "liblomiri-download-manager-client-dev",
    ),
    // A module of the interpreter, not a program.
    (
        "/usr/lib/python3/dist-packages/dbusmock",
        "python3-dbusmock",
    ),
];

/// Where programs are; a user's path often lacks the last two.
const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Installs what is missing, or says how when this is not root.
pub(crate) fn setup() -> Result<(), Failed> {
    let is_there = |program: &str| {
        PLACES
            .iter()
            .any(|place| Path::new(place).join(program).exists())
    };
    let mut missing: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let install = ["install", "--yes", "--no-install-recommends"];
    let by_hand = format!("apt-get {} {}", install.join(" "), missing.join(" "));
    if !is_root() {
        return Err(Failed(format!("packages are missing; as root: {by_hand}")));
    }
    eprintln!("+ {by_hand}");
    apt(&["update", "--quiet"])?;
    apt(&[&install[..], &missing].concat())
}

fn apt(arguments: &[&str]) -> Result<(), Failed> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!(
            "`apt-get {}` failed: {status}",
            arguments.join(" ")
        ))),
        Err(error) => Err(Failed(format!("cannot run apt-get: {error}"))),
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

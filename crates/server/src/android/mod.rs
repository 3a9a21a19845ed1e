//! Images inside images: the Android part of a device tarball, and the recovery's trust root (server
//! spec, section 18).

mod boot_image;
mod cpio;
mod sparse;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::process::Command;

use anyhow::{Context, ensure};
use camino::Utf8Path;
use system_image_delta::{Header, Kind, Limits, Reader};
use system_image_delta_build::Writer;
use system_image_formats::name::DeviceName;
use system_image_report::Progress;

use self::boot_image::BootImage;
use crate::input::{self, scratch};
use crate::tree::Tree;

/// Where the recovery is in a device tarball.
const RECOVERY: &[u8] = b"partitions/recovery.img";

/// Largest recovery image, in bytes.
const MAX_RECOVERY: u64 = 256 << 20;

/// Devices whose ramdisk has a header of the vendor in front.
const WITH_VENDOR_HEADER: [&str; 3] = ["krillin", "vegetahd", "arale"];

/// Length of that header, in bytes.
const VENDOR_HEADER: usize = 512;

/// A device tarball of boot, recovery and system image, the latter expanded and shrunk (sections
/// 8.3 and 18.2).
pub fn device_tarball(
    tree: &Tree,
    boot: &Utf8Path,
    recovery: &Utf8Path,
    system: &Utf8Path,
) -> anyhow::Result<File> {
    let raw = tempfile::NamedTempFile::new_in(tree.root().state())
        .context("cannot make a scratch file")?;
    let mut source = File::open(system).with_context(|| format!("cannot read `{system}`"))?;
    sparse::expand(&mut source, raw.as_file())
        .with_context(|| format!("cannot expand `{system}`"))?;
    for (program, arguments) in [("e2fsck", &["-y", "-f"][..]), ("resize2fs", &["-M"])] {
        let output = Command::new(program)
            .args(arguments)
            .arg(raw.path())
            .output()
            .with_context(|| format!("cannot run `{program}`; install e2fsprogs"))?;
        // 1: something was mended, which is nothing wrong.
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "`{program}` cannot shrink `{system}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut writer = Writer::new(scratch(tree)?);
    let members = [
        ("system/var/lib/lxc/android/system.img", raw.path()),
        ("partitions/boot.img", boot.as_std_path()),
        ("partitions/recovery.img", recovery.as_std_path()),
    ];
    for (path, place) in members {
        let mut file =
            File::open(place).with_context(|| format!("cannot read `{}`", place.display()))?;
        let size = file.metadata()?.len();
        writer.member(&plain_file(path, size, tree.now()), &mut file)?;
    }
    Ok(writer.finish()?.0)
}

/// A device tarball whose recovery trusts the keyring `name` of this server; `None` when it has no
/// recovery that is understood (section 18.1).
pub fn with_keyring(
    tree: &Tree,
    archive: &mut File,
    device: &DeviceName,
    name: &str,
) -> anyhow::Result<Option<File>> {
    let place = tree.root().keyrings().join(format!("{name}.tar.xz"));
    let read = |place: &str| fs::read(place).with_context(|| format!("cannot read `{place}`"));
    let keyring = [read(place.as_str())?, read(&format!("{place}.asc"))?];
    archive.rewind()?;
    let mut progress = Progress::new("looking for the recovery", archive.metadata()?.len());
    let mut tar = scratch(tree)?;
    let mut stream = input::open(archive, &mut progress)?;
    std::io::copy(&mut stream, &mut tar).context("it is a damaged archive")?;
    drop(stream);
    progress.finish();
    let Some(recovery) = recovery(&tar)? else {
        return Ok(None);
    };
    let Some(recovery) = repacked(&recovery, device, name, &keyring)? else {
        return Ok(None);
    };
    let mut reader = Reader::seeking(input::rewound(&tar)?, Limits::default());
    let mut writer = Writer::new(scratch(tree)?);
    while let Some(mut header) = reader.next_header()? {
        if header.path == RECOVERY {
            let size = recovery.len() as u64;
            header.kind = Kind::File { size };
            writer.member(&header, &mut &recovery[..])?;
        } else {
            writer.member(&header, &mut reader)?;
        }
    }
    Ok(Some(writer.finish()?.0))
}

fn recovery(tar: &File) -> anyhow::Result<Option<Vec<u8>>> {
    let mut reader = Reader::seeking(input::rewound(tar)?, Limits::default());
    while let Some(header) = reader.next_header()? {
        if header.path == RECOVERY
            && matches!(header.kind, Kind::File { size } if size <= MAX_RECOVERY)
        {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// The recovery with another trust root; `None` when it is no boot image.
fn repacked(
    recovery: &[u8],
    device: &DeviceName,
    name: &str,
    keyring: &[Vec<u8>; 2],
) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(image) = BootImage::parse(recovery) else {
        return Ok(None);
    };
    let vendor = if WITH_VENDOR_HEADER.contains(&device.as_str()) {
        VENDOR_HEADER
    } else {
        0
    };
    let (header, packed) = image
        .ramdisk()
        .split_at_checked(vendor)
        .context("the recovery's ramdisk is too short")?;
    let (archive, packing) = cpio::unpack(packed).context("the recovery's ramdisk")?;
    let archive = cpio::with_keyring(&archive, name, keyring).context("the recovery's ramdisk")?;
    let ramdisk = [header, &packing.pack(&archive)?].concat();
    image.with_ramdisk(&ramdisk).map(Some)
}

fn plain_file(path: &str, size: u64, now: i64) -> Header {
    Header::of_root(path.as_bytes().to_vec(), Kind::File { size }, 0o644, now)
}

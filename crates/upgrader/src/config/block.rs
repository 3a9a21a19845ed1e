//! Names of block devices, as a device description or an fstab has them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use camino::{Utf8Path, Utf8PathBuf};

/// What stands for the slot in a name.
const SLOT: &str = "{slot}";

/// Where Android's recoveries have links by partition name.
const ANDROID: &str = "/dev/block/by-name";

/// A name of a block device. In text: `/dev/…`, `PARTLABEL=…`, `PARTUUID=…`, `LABEL=…`, `UUID=…` or
/// `LVM=group/volume`; `{slot}` in it stands for a slot's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockName(String);

/// Text that names no block device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no block device: `/dev/…`, `PARTLABEL=…`, `PARTUUID=…`, `LABEL=…`, `UUID=…` or `LVM=group/volume`"
)]
pub struct BlockNameError(String);

/// A block device that cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("there is no block device `{name}`")]
pub struct NotFound {
    name: String,
    source: io::Error,
}

impl BlockName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, BlockNameError> {
        let is_name = |text: &str| !text.is_empty() && !text.contains('/') && text != "..";
        let fits = match text.split_once('=') {
            Some(("PARTLABEL" | "PARTUUID" | "LABEL" | "UUID", name)) => is_name(name),
            Some(("LVM", name)) => name
                .split_once('/')
                .is_some_and(|(group, volume)| is_name(group) && is_name(volume)),
            _ => text.starts_with('/'),
        };
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(BlockNameError(text.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether each slot has its own.
    pub fn is_slotted(&self) -> bool {
        self.0.contains(SLOT)
    }

    /// That of one slot.
    pub fn of_slot(&self, slot: &str) -> Self {
        Self(self.0.replace(SLOT, slot))
    }

    /// The path of the device, that of this slot where each has its own.
    pub fn find_in(&self, slot: Option<&str>) -> Result<Utf8PathBuf, NotFound> {
        match slot {
            Some(slot) => self.of_slot(slot).find(),
            None => self.find(),
        }
    }

    /// The path of the device.
    pub fn find(&self) -> Result<Utf8PathBuf, NotFound> {
        let found = match self.0.split_once('=') {
            Some(("PARTLABEL", label)) => by_link("partlabel", label)
                .or_else(|| there(&Utf8Path::new(ANDROID).join(label)))
                .or_else(|| by_uevent("PARTNAME", label)),
            Some(("PARTUUID", id)) => {
                by_link("partuuid", &id.to_lowercase()).or_else(|| by_uevent("PARTUUID", id))
            }
            Some(("LABEL", label)) => by_link("label", label)
                .or_else(|| by_superblock(|superblock| superblock.label == label.as_bytes())),
            Some(("UUID", id)) => by_link("uuid", &id.to_lowercase())
                .or_else(|| by_superblock(|superblock| superblock.uuid == id.to_lowercase())),
            Some(("LVM", name)) => there(&Utf8Path::new("/dev").join(name)).or_else(|| {
                // Without udev there are only the names of the device mapper, which doubles dashes.
                let mapped = name.replace('-', "--").replace('/', "-");
                there(&Utf8Path::new("/dev/mapper").join(mapped))
            }),
            _ => Some(self.0.clone().into()),
        };
        found.ok_or_else(|| NotFound {
            name: self.0.clone(),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

fn there(path: &Utf8Path) -> Option<Utf8PathBuf> {
    path.exists().then(|| path.to_owned())
}

/// The link that udev makes.
fn by_link(kind: &str, name: &str) -> Option<Utf8PathBuf> {
    // What is special in a label is escaped there, and found by the other ways.
    there(&Utf8PathBuf::from(format!("/dev/disk/by-{kind}/{name}")))
}

/// What the kernel says of each partition, where no udev runs.
fn by_uevent(key: &str, value: &str) -> Option<Utf8PathBuf> {
    let wanted = format!("{key}={value}").to_lowercase();
    block_devices()
        .find(|name| {
            let path = format!("/sys/class/block/{name}/uevent");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().any(|line| line.to_lowercase() == wanted)
        })
        .map(|name| Utf8Path::new("/dev").join(name))
}

fn block_devices() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter()
}

/// What an ext2, ext3 or ext4 file system says of itself.
struct Superblock {
    label: Vec<u8>,
    uuid: String,
}

fn by_superblock(fits: impl Fn(&Superblock) -> bool) -> Option<Utf8PathBuf> {
    let paths = block_devices().map(|name| Utf8Path::new("/dev").join(name));
    paths
        .into_iter()
        .find(|path| superblock(path).is_some_and(|found| fits(&found)))
}

fn superblock(device: &Utf8Path) -> Option<Superblock> {
    /// Where the superblock is, and in it the magic number, the UUID and the label.
    const AT: u64 = 1024;
    const MAGIC: std::ops::Range<usize> = 56..58;
    const UUID: std::ops::Range<usize> = 104..120;
    const LABEL: std::ops::Range<usize> = 120..136;
    let mut bytes = [0; 256];
    File::open(device)
        .ok()?
        .read_exact_at(&mut bytes, AT)
        .ok()?;
    if bytes[MAGIC] != [0x53, 0xef] {
        return None;
    }
    let label = &bytes[LABEL];
    let end = label.iter().position(|&b| b == 0).unwrap_or(label.len());
    let hex: String = bytes[UUID].iter().map(|b| format!("{b:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Some(Superblock {
        label: label[..end].to_vec(),
        uuid: parts.join("-"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_form_are_read() {
        for text in [
            "/dev/mmcblk0p7",
            "PARTLABEL=system_{slot}",
            "PARTUUID=0c3d",
            "LABEL=system-a",
            "UUID=1-2",
            "LVM=ubuntu/rootfs",
        ] {
            assert_eq!(BlockName::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "boot",
            "LABEL=",
            "PARTLABEL=../x",
            "LVM=rootfs",
            "LVM=/x",
            "NAME=x",
        ] {
            assert!(BlockName::parse(text).is_err(), "{text}");
        }
        let slotted = BlockName::parse("PARTLABEL=boot_{slot}").unwrap();
        assert!(slotted.is_slotted());
        assert_eq!(slotted.of_slot("b").as_str(), "PARTLABEL=boot_b");
    }

    #[test]
    fn what_is_not_there_is_said_by_its_name() {
        let name = BlockName::parse("PARTLABEL=no-such-partition").unwrap();
        assert!(
            name.find()
                .unwrap_err()
                .to_string()
                .contains("no-such-partition")
        );
    }
}

//! `upgrader.toml` as written, and what it means once it is checked.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use system_image_delta::{Limits, Privileges, patch};

use super::block::BlockName;
use super::fstab::Fstab;
use super::{
    BootLoader, ConfigError, Filesystem, Mounted, Reset, Settings, SlotAt, Slots, SystemAt, Way,
};

/// The size of an image file that is made: what boot code and partitions of the last devices with one
/// expect (upgrader spec, section 1).
const IMAGE_SIZE: u64 = 3 << 30;

/// How often an update is continued that gets no further.
const ATTEMPTS: u32 = 10;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    archive_master: Option<Utf8PathBuf>,
    device: String,
    drop_box: Utf8PathBuf,
    data: Utf8PathBuf,
    result: Option<Utf8PathBuf>,
    log: Option<Utf8PathBuf>,
    fstab: Option<Utf8PathBuf>,
    #[serde(default)]
    downgrade: bool,
    user: Option<String>,
    attempts: Option<u32>,
    #[serde(default)]
    system: System,
    slots: Option<WrittenSlots>,
    partitions: Option<BTreeMap<String, String>>,
    #[serde(default)]
    reset: WrittenReset,
    #[serde(default)]
    limits: WrittenLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct System {
    directory: Option<Utf8PathBuf>,
    device: Option<String>,
    image: Option<Utf8PathBuf>,
    names: Option<Vec<Utf8PathBuf>>,
    size_mib: Option<u64>,
    mountpoint: Option<Utf8PathBuf>,
    #[serde(default)]
    filesystem: Filesystem,
    #[serde(default)]
    way: Way,
    #[serde(default)]
    privileges: WrittenPrivileges,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPrivileges {
    #[default]
    Root,
    User,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSlots {
    names: Vec<String>,
    boot: WrittenLoader,
    at: Option<Utf8PathBuf>,
    cmdline: Option<Utf8PathBuf>,
    tries: Option<u8>,
    state: Option<Utf8PathBuf>,
    #[serde(default)]
    health: Vec<Vec<String>>,
    health_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenLoader {
    Grub,
    SystemdBoot,
    UBoot,
    Script,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReset {
    #[serde(default)]
    keep: Vec<Utf8PathBuf>,
    list: Option<Utf8PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    archive_bytes: Option<u64>,
    archive_members: Option<u64>,
    patch_memory_mib: Option<u32>,
}

pub(super) fn parse(
    text: &str,
    fstab: impl Fn(Option<&Utf8Path>) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let written: Written = toml::from_str(text)?;
    let drop_box = absolute("drop_box", written.drop_box)?;
    let data = absolute("data", written.data)?;
    let beside = |name: &str| drop_box.parent().unwrap_or(&drop_box).join(name);
    let fstab = fstab(written.fstab.as_deref()).map(|text| Fstab::parse(&text));
    let fstab = fstab.unwrap_or_default();
    let way = written.system.way;
    let privileges = match written.system.privileges {
        WrittenPrivileges::Root => Privileges::Root,
        WrittenPrivileges::User => Privileges::User,
    };
    let system = match written.slots {
        None => system(&written.system, &beside("system"), &data, &fstab)?,
        Some(slots) => SystemAt::Slots(slots.checked(written.system, &data)?),
    };
    let partitions = match written.partitions {
        Some(partitions) => partitions
            .into_iter()
            .map(|(name, device)| Ok((name.clone(), block(&name, &device)?)))
            .collect::<Result<_, ConfigError>>()?,
        None => fstab
            .partitions()
            .map(|(name, device)| (name.to_owned(), device.clone()))
            .collect(),
    };
    let usual = Limits::default();
    let archive_master = written
        .archive_master
        .unwrap_or_else(|| "/etc/system-image/archive-master.tar.xz".into());
    let result = written
        .result
        .unwrap_or_else(|| beside("system-image-result.json"));
    let list = written
        .reset
        .list
        .unwrap_or_else(|| "/etc/persistent-files".into());
    Ok(Settings {
        archive_master: absolute("archive_master", archive_master)?,
        device: written.device.parse()?,
        result: absolute("result", result)?,
        log: written.log.map(|path| absolute("log", path)).transpose()?,
        system,
        way,
        privileges,
        partitions,
        reset: Reset {
            keep: below_data(written.reset.keep)?,
            list: absolute("list", list)?,
        },
        user: user(written.user)?,
        downgrade: written.downgrade,
        limits: Limits {
            bytes: written.limits.archive_bytes.unwrap_or(usual.bytes),
            members: written.limits.archive_members.unwrap_or(usual.members),
            ..usual
        },
        patch_limits: patch_limits(&written.limits),
        attempts: written.attempts.unwrap_or(ATTEMPTS).max(1),
        data,
        drop_box,
    })
}

fn patch_limits(written: &WrittenLimits) -> patch::Limits {
    let mut limits = patch::Limits::default();
    if let Some(mib) = written.patch_memory_mib {
        limits.memory = u64::from(mib) << 20;
    }
    limits
}

/// Where the system is without slots. Without a word in the settings, as the recoveries have it: on
/// the partition that the fstab has for it, else in an image file among user data.
fn system(
    written: &System,
    usual_mountpoint: &Utf8Path,
    data: &Utf8Path,
    fstab: &Fstab,
) -> Result<SystemAt, ConfigError> {
    let mountpoint = || {
        let path = written.mountpoint.clone();
        absolute(
            "mountpoint",
            path.unwrap_or_else(|| usual_mountpoint.to_owned()),
        )
    };
    let filesystem = written.filesystem;
    let on_device = |on| -> Result<SystemAt, ConfigError> {
        let mountpoint = mountpoint()?;
        Ok(SystemAt::Device(Mounted {
            on,
            mountpoint,
            filesystem,
        }))
    };
    let in_image = |on: Utf8PathBuf| -> Result<SystemAt, ConfigError> {
        let mountpoint = mountpoint()?;
        let usual = || vec![data.join("system.img")];
        let names = written.names.clone().unwrap_or_else(usual);
        let names = names.into_iter().map(|name| absolute("names", name));
        let size = written
            .size_mib
            .map_or(Some(IMAGE_SIZE), |mib| mib.checked_mul(1 << 20));
        Ok(SystemAt::Image {
            mounted: Mounted {
                on: absolute("image", on)?,
                mountpoint,
                filesystem,
            },
            names: names.collect::<Result<_, _>>()?,
            size: size.ok_or(ConfigError::Together("`size_mib` is larger than any file"))?,
        })
    };
    match (&written.directory, &written.device, &written.image) {
        (Some(path), None, None) if written.mountpoint.is_none() => {
            Ok(SystemAt::Directory(absolute("directory", path.clone())?))
        }
        (None, Some(device), None) => on_device(block("device", device)?),
        (None, None, Some(image)) => in_image(image.clone()),
        (None, None, None) => match fstab.system() {
            Some(device) => on_device(device.clone()),
            None => in_image(data.join("ubuntu.img")),
        },
        _ => Err(ConfigError::Together(
            "`[system]` needs one of `directory`, `device` with `mountpoint`, or `image`",
        )),
    }
}

impl WrittenSlots {
    fn checked(self, system: System, data: &Utf8Path) -> Result<Slots, ConfigError> {
        let name = |text: &String| {
            text.parse().map_err(|_| ConfigError::Value {
                key: "names",
                value: text.clone(),
            })
        };
        let names = self.names.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let mut distinct = names.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() != names.len() || names.len() < 2 {
            return Err(ConfigError::Together(
                "`[slots] names` needs two names or more",
            ));
        }
        let at = match (system.directory, system.device) {
            (Some(path), None) => SlotAt::Directory(absolute("directory", path)?.into_string()),
            (None, Some(device)) => {
                let mountpoint = system.mountpoint.ok_or(ConfigError::Together(
                    "`[system]` needs a `mountpoint` for the slot that is changed",
                ))?;
                SlotAt::Device(Mounted {
                    on: block("device", &device)?,
                    mountpoint: absolute("mountpoint", mountpoint)?,
                    filesystem: system.filesystem,
                })
            }
            _ => {
                return Err(ConfigError::Together(
                    "with `[slots]`, `[system]` needs a `device` or a `directory` with `{slot}` in its name",
                ));
            }
        };
        let is_slotted = match &at {
            SlotAt::Directory(path) => path.contains("{slot}"),
            SlotAt::Device(mounted) => mounted.on.is_slotted(),
        };
        if !is_slotted {
            return Err(ConfigError::Together(
                "each slot needs its own place: put `{slot}` into its name",
            ));
        }
        let place = |usual: Option<&str>| match self.at.clone().or(usual.map(Into::into)) {
            Some(path) => absolute("at", path),
            None => Err(ConfigError::Together(
                "`[slots] at` says where the boot loader's state is",
            )),
        };
        let boot = match self.boot {
            WrittenLoader::Grub => BootLoader::Grub(place(Some("/boot/grub/grubenv"))?),
            WrittenLoader::SystemdBoot => BootLoader::SystemdBoot(place(Some("/efi"))?),
            WrittenLoader::UBoot => BootLoader::UBoot(
                self.at
                    .clone()
                    .map(|path| absolute("at", path))
                    .transpose()?,
            ),
            WrittenLoader::Script => BootLoader::Script(place(None)?),
        };
        let tries = self.tries.unwrap_or(3);
        if tries == 0 || self.health.iter().any(Vec::is_empty) {
            return Err(ConfigError::Together(
                "`[slots] tries` is at least 1, and each of `health` names a program",
            ));
        }
        let state = self.state.unwrap_or_else(|| data.join("system-image"));
        Ok(Slots {
            names,
            at,
            boot,
            cmdline: absolute(
                "cmdline",
                self.cmdline.unwrap_or_else(|| "/proc/cmdline".into()),
            )?,
            tries,
            state: absolute("state", state)?,
            health: self.health,
            health_seconds: self.health_seconds.unwrap_or(120),
        })
    }
}

fn block(key: &str, text: &str) -> Result<BlockName, ConfigError> {
    BlockName::parse(text).map_err(|source| ConfigError::Block {
        key: key.to_owned(),
        source,
    })
}

/// A name that is safe as a line of `chpasswd`.
fn user(written: Option<String>) -> Result<String, ConfigError> {
    let user = written.unwrap_or_else(|| "phablet".to_owned());
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !user.is_empty() && user.bytes().all(is_name) {
        return Ok(user);
    }
    Err(ConfigError::Value {
        key: "user",
        value: user,
    })
}

/// Paths below user data, with or without the leading slash that some lists have.
fn below_data(paths: Vec<Utf8PathBuf>) -> Result<Vec<Utf8PathBuf>, ConfigError> {
    let below = |path: Utf8PathBuf| {
        let text = path.as_str().trim_matches('/');
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        if text.split('/').all(is_plain) {
            return Ok(Utf8PathBuf::from(text));
        }
        Err(ConfigError::Value {
            key: "keep",
            value: path.into_string(),
        })
    };
    paths.into_iter().map(below).collect()
}

fn absolute(key: &'static str, path: Utf8PathBuf) -> Result<Utf8PathBuf, ConfigError> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ConfigError::Relative { key, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        device = "tango"
        drop_box = "/cache/recovery"
        data = "/data"
        [system]
        directory = "/cache/system"
    "#;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(text, |_| None)
    }

    #[test]
    fn the_smallest_file_has_the_usual_places() {
        let settings = parse(SMALLEST).unwrap();
        assert_eq!(
            settings.archive_master,
            "/etc/system-image/archive-master.tar.xz"
        );
        assert_eq!(settings.result, "/cache/system-image-result.json");
        assert_eq!(settings.system, SystemAt::Directory("/cache/system".into()));
        assert_eq!(settings.privileges, Privileges::Root);
        assert_eq!((settings.user.as_str(), settings.attempts), ("phablet", 10));
    }

    #[test]
    fn without_a_word_about_the_system_the_fstab_says_where_it_is() {
        let start = "device = \"tango\"\ndrop_box = \"/cache/recovery\"\ndata = \"/data\"\n";
        let table = "/dev/p1 /boot emmc\n/dev/p2 /system ext4\n";
        let settings = Settings::parse(start, |named| {
            assert_eq!(named, None);
            Some(table.to_owned())
        })
        .unwrap();
        let SystemAt::Device(mounted) = &settings.system else {
            panic!("{:?}", settings.system);
        };
        assert_eq!(
            (mounted.on.as_str(), mounted.mountpoint.as_str()),
            ("/dev/p2", "/cache/system")
        );
        let names: Vec<_> = settings
            .partitions
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["boot", "system"]);
        let SystemAt::Image {
            mounted,
            names,
            size,
        } = parse(start).unwrap().system
        else {
            panic!("no image file");
        };
        assert_eq!((mounted.on.as_str(), size), ("/data/ubuntu.img", 3 << 30));
        assert_eq!(names, ["/data/system.img"]);
    }

    const SLOTS: &str = r#"
        device = "tango"
        drop_box = "/writable/cache"
        data = "/writable"
        [system]
        device = "PARTLABEL=system-{slot}"
        mountpoint = "/run/system"
        [slots]
        names = ["a", "b"]
        boot = "u-boot"
        health = [["/usr/bin/true"]]
        [partitions]
        boot = "PARTLABEL=boot-{slot}"
    "#;

    #[test]
    fn slots_have_a_place_each() {
        let settings = parse(SLOTS).unwrap();
        let slots = settings.slots().unwrap();
        assert_eq!(
            (slots.tries, slots.boot.clone()),
            (3, BootLoader::UBoot(None))
        );
        assert_eq!(
            (slots.state.as_str(), slots.cmdline.as_str()),
            ("/writable/system-image", "/proc/cmdline")
        );
        assert!(settings.partitions[0].1.is_slotted());
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        let with = |file: &str, from: &str, to: &str| {
            assert!(file.contains(from), "{from}");
            let error = parse(&file.replacen(from, to, 1)).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", source.unwrap_or_default())
        };
        for (from, to, want) in [
            ("data =", "dta =", "dta"),
            ("device = \"tango\"", "", "device"),
            ("device = \"tango\"", "device = 7", "string"),
            ("device = \"tango\"", "device = \"../x\"", "../x"),
            ("\"/data\"", "\"data\"", "absolute"),
            ("directory", "dir", "dir"),
            ("[system]", "[system]\ndevice = \"/dev/x\"", "needs one of"),
            ("[system]", "[system]\nprivileges = \"all\"", "all"),
            ("[system]", "[limits]\nbytes = 1\n[system]", "bytes"),
            ("[system]", "[system]\nmountpoint = \"/x\"", "needs one of"),
            ("[system]", "user = \"a:b\"\n[system]", "a:b"),
            ("[system]", "[reset]\nkeep = [\"../x\"]\n[system]", "../x"),
            (
                "[system]",
                "[partitions]\nboot = \"boot\"\n[system]",
                "names no block device",
            ),
        ] {
            let got = with(SMALLEST, from, to);
            assert!(got.contains(want), "{to}: {got}");
        }
        for (from, to, want) in [
            ("\"a\", \"b\"", "\"a\"", "two names"),
            ("\"a\", \"b\"", "\"a\", \"a\"", "two names"),
            ("\"a\", \"b\"", "\"a\", \"B!\"", "B!"),
            ("system-{slot}", "system", "its own place"),
            ("u-boot", "script", "`[slots] at`"),
            ("u-boot", "lilo", "lilo"),
            (
                "boot = \"u-boot\"",
                "boot = \"u-boot\"\ntries = 0",
                "at least 1",
            ),
            ("mountpoint = \"/run/system\"", "", "mountpoint"),
        ] {
            let got = with(SLOTS, from, to);
            assert!(got.contains(want), "{to}: {got}");
        }
    }
}

//! Marks on user data that a command file switches on and off (upgrader spec, section 4).

use std::io;

use system_image_delta::{Privileges, Root};
use system_image_formats::command::SettingName;
use system_image_tree::files::Access;

/// The USB setting: what the device offers to a computer.
const USB: &str = "android-data/property/persist.sys.usb.config";

/// Who may use adb.
pub const ADB_KEYS: &str = "android-data/misc/adb/adb_keys";

/// adb stays usable while the screen is locked.
const ADB_ONLOCK: &str = ".adb_onlock";

/// The wipe came from the production line.
const FACTORY_WIPE: &str = ".factory_wipe";

/// The numbers of the phone's user.
const PHABLET: u32 = 32011;

/// Longest USB setting that is read, in bytes.
const MAX_USB: u64 = 4096;

/// Something that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// adb over USB.
    Adb,
    /// File transfer over USB.
    Mtp,
    /// adb while the screen is locked.
    AdbOnlock,
    /// The mark of a wipe in production.
    FactoryWipe,
}

impl Mark {
    /// The mark of a setting; a password and keys are more than a mark.
    pub fn of(name: SettingName) -> Option<Self> {
        Some(match name {
            SettingName::DeveloperMode => Self::Adb,
            SettingName::Mtp => Self::Mtp,
            SettingName::AdbOnlock => Self::AdbOnlock,
            SettingName::FactoryWipe => Self::FactoryWipe,
            SettingName::DefaultPassword | SettingName::AdbKeys => return None,
        })
    }

    /// Switches it.
    pub fn set(self, data: &Root, on: bool) -> io::Result<()> {
        match self {
            Self::Adb => set_usb(data, "adb", on),
            Self::Mtp => set_usb(data, "mtp", on),
            Self::AdbOnlock => set_flag(data, ADB_ONLOCK, on),
            Self::FactoryWipe => set_flag(data, FACTORY_WIPE, on),
        }
    }
}

/// Lets these keys use adb.
pub fn set_adb_keys(data: &Root, keys: &[u8], privileges: Privileges) -> io::Result<()> {
    let owner = (privileges == Privileges::Root).then_some((PHABLET, PHABLET));
    let access = Access { mode: 0o640, owner };
    data.write_file(ADB_KEYS, keys, access, 0o750)
}

/// Lets no keys use adb.
pub fn remove_adb_keys(data: &Root) -> io::Result<()> {
    data.remove_file(ADB_KEYS)
}

fn set_flag(data: &Root, name: &str, on: bool) -> io::Result<()> {
    if !on {
        return data.remove_file(name);
    }
    let access = Access {
        mode: 0o644,
        owner: None,
    };
    data.write_file(name, b"", access, 0o755)
}

fn set_usb(data: &Root, what: &str, on: bool) -> io::Result<()> {
    let old = data.read_file(USB, MAX_USB)?.unwrap_or_default();
    let new = usb(&String::from_utf8_lossy(&old), what, on);
    let access = Access {
        mode: 0o600,
        owner: None,
    };
    data.write_file(USB, new.as_bytes(), access, 0o700)
}

/// The USB setting with `what` switched: always `mtp` before `adb`, and never nothing.
fn usb(old: &str, what: &str, on: bool) -> String {
    let has = |word| {
        if word == what {
            on
        } else {
            old.trim().split(',').any(|part| part == word)
        }
    };
    match (has("mtp"), has("adb")) {
        (true, true) => "mtp,adb",
        (true, false) => "mtp",
        (false, _) => "adb",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usb_setting_is_always_in_one_order_and_never_empty() {
        for (old, what, on, want) in [
            ("", "mtp", true, "mtp"),
            ("", "adb", true, "adb"),
            ("adb", "mtp", true, "mtp,adb"),
            ("mtp", "adb", true, "mtp,adb"),
            ("adb,mtp\n", "adb", true, "mtp,adb"),
            ("mtp,adb", "mtp", false, "adb"),
            ("mtp,adb", "adb", false, "mtp"),
            ("mtp", "mtp", false, "adb"),
            ("adb", "adb", false, "adb"),
            ("", "mtp", false, "adb"),
        ] {
            assert_eq!(usb(old, what, on), want, "{old} {what} {on}");
        }
    }
}

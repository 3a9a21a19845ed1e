//! Where a member of an update archive belongs, by the first part of its path (upgrader spec,
//! section 7).

use crate::path::MemberPath;

/// What an image in Android's sparse form begins with: a partition does not hold it as it is.
pub const SPARSE_IMAGE: [u8; 4] = 0xed26_ff3a_u32.to_le_bytes();

/// A member's destination. Paths are below the destination's own root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `system/…`: the system's file system. The empty path is its root directory.
    System(MemberPath),
    /// `partitions/…`: images for partitions, named by the recovery's table of them.
    Partition(MemberPath),
    /// `data/…`: files for the user data partition.
    Data(MemberPath),
    /// A mark that speaks to the upgrader of some devices.
    Flag(Flag),
    /// `assets/…`, `flashtool-assets/…`, `hardware.yaml`: boot files of the core product.
    Core(MemberPath),
    /// Anything else. The originals unpack it where it falls, beside or into the drop box; no
    /// image relies on that.
    Unknown(MemberPath),
}

/// Marks at the top of a device's archive (upgrader spec, sections 7 and 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// `legacy_channel`: keep the old name of the system's image file.
    LegacyChannel,
    /// `system_in_data`: the system is an image file on the data partition.
    SystemInData,
    /// `disable_syspart`: the same on other devices.
    DisableSyspart,
}

impl Route {
    /// Finds the destination of a member.
    pub fn of(path: &MemberPath) -> Self {
        let Some((top, below)) = path.split_first() else {
            return Self::Unknown(path.clone());
        };
        match top {
            b"system" => Self::System(below),
            b"partitions" => Self::Partition(below),
            b"data" => Self::Data(below),
            b"assets" | b"flashtool-assets" => Self::Core(path.clone()),
            b"hardware.yaml" if below.is_root() => Self::Core(path.clone()),
            b"legacy_channel" if below.is_root() => Self::Flag(Flag::LegacyChannel),
            b"system_in_data" if below.is_root() => Self::Flag(Flag::SystemInData),
            b"disable_syspart" if below.is_root() => Self::Flag(Flag::DisableSyspart),
            _ => Self::Unknown(path.clone()),
        }
    }

    /// The name of the partition that this is an image for.
    pub fn partition(&self) -> Option<&str> {
        let Self::Partition(image) = self else {
            return None;
        };
        let name = std::str::from_utf8(image.as_bytes()).ok()?;
        let name = name.strip_suffix(".img")?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_where_their_first_part_says() {
        let path = |text: &str| MemberPath::parse(text.as_bytes()).unwrap();
        for (text, want) in [
            ("system", Route::System(path(""))),
            ("./system/etc/x", Route::System(path("etc/x"))),
            ("partitions/boot.img", Route::Partition(path("boot.img"))),
            ("data/x", Route::Data(path("x"))),
            ("system_in_data", Route::Flag(Flag::SystemInData)),
            ("system_in_data/x", Route::Unknown(path("system_in_data/x"))),
            ("assets/vmlinuz", Route::Core(path("assets/vmlinuz"))),
            (
                "recovery/ubuntu_command",
                Route::Unknown(path("recovery/ubuntu_command")),
            ),
            ("systemd", Route::Unknown(path("systemd"))),
            ("", Route::Unknown(path(""))),
        ] {
            assert_eq!(Route::of(&path(text)), want, "{text}");
        }
    }

    #[test]
    fn images_are_for_the_partitions_of_their_names() {
        let of = |text: &str| Route::of(&MemberPath::parse(text.as_bytes()).unwrap());
        for (text, want) in [
            ("partitions/boot.img", Some("boot")),
            ("partitions/boot", None),
            ("partitions/.img", None),
            ("partitions/a/boot.img", None),
            ("system/boot.img", None),
        ] {
            assert_eq!(of(text).partition(), want, "{text}");
        }
    }
}

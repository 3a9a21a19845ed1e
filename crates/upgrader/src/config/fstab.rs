//! The recovery's table of file systems, which names partitions by where they would be mounted
//! (upgrader spec, sections 8 and 9).

use super::block::BlockName;

/// Mount points that mean the system, the likeliest first.
const SYSTEM: [&str; 3] = ["/system_root", "/mnt/system", "/system"];

/// Partitions by name, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fstab {
    entries: Vec<(String, BlockName)>,
}

impl Fstab {
    /// Reads a table. Lines that begin with no block device are none of ours; where a name occurs
    /// twice, the first one counts.
    pub fn parse(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let device = fields.next().filter(|field| !field.starts_with('#'))?;
            let mountpoint = fields.next()?;
            Some((mountpoint.to_owned(), BlockName::parse(device).ok()?))
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// The names of partitions: mount points without their leading slash.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &BlockName)> {
        self.entries.iter().filter_map(|(mountpoint, device)| {
            let name = mountpoint.strip_prefix('/')?;
            (!name.is_empty() && !name.contains('/')).then_some((name, device))
        })
    }

    /// The partition of the system, if the table has one.
    pub fn system(&self) -> Option<&BlockName> {
        SYSTEM.iter().find_map(|wanted| {
            let mut entries = self.entries.iter();
            entries.find_map(|(on, device)| (on == wanted).then_some(device))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_by_their_mount_points() {
        let table = "# a comment\n\
            /dev/block/platform/msm_sdcc.1/by-name/boot  /boot   emmc defaults defaults\n\
            /dev/block/mmcblk0p20\t/recovery emmc defaults\n\
            /dev/block/mmcblk0p21 /system ext4 ro\n\
            LABEL=data /data ext4 rw\n\
            tmpfs /tmp tmpfs defaults\n\
            /dev/block/mmcblk0p9 /mnt/vendor ext4\n\
            /dev/only\n\n";
        let fstab = Fstab::parse(table);
        let names: Vec<_> = fstab.partitions().map(|(name, _)| name).collect();
        assert_eq!(names, ["boot", "recovery", "system", "data"]);
        assert_eq!(fstab.system().unwrap().as_str(), "/dev/block/mmcblk0p21");
        let newer = Fstab::parse("/dev/x /system ext4\n/dev/y /system_root ext4\n");
        assert_eq!(newer.system().unwrap().as_str(), "/dev/y");
        assert_eq!(Fstab::parse("").system(), None);
    }
}

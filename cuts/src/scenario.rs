//! What is updated to what, and on which devices: the data of all runs.
//!
//! A new scenario is an entry of [`all`]. What a device may have besides its system (a boot
//! partition, a second slot, user data that an update resets) is a [`Layout`] of its own, and part
//! of what `Device::look` sees.

use system_image_delta::Header;
use system_image_testkit::tree::Tree;
use system_image_testkit::{Recovery, between};

use crate::device::Layout;
use crate::trees::version;

/// An update that is cut off.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name in the summary.
    pub(crate) name: &'static str,
    /// The devices that it is tried on.
    pub(crate) layouts: &'static [Layout],
    /// The system that is installed.
    pub(crate) old: Tree,
    /// What the client has left in the drop box.
    pub(crate) left: Left,
}

/// What a client leaves in the drop box.
#[derive(Debug)]
pub(crate) enum Left {
    /// The first system in full, then deltas along the others.
    Full(Vec<Tree>),
    /// Deltas along these systems, from the installed one.
    Deltas(Vec<Tree>),
    /// A patch to the first of these systems from the installed one, then deltas along the others.
    Patch(Vec<Tree>),
    /// A delta to this system, with a kernel, a recovery and a payload for user data.
    Beside(Tree),
    /// The same after user data was wiped.
    WipedBeside(Tree),
    /// A production reset.
    Reset,
}

impl Scenario {
    /// The system that the update leads to.
    pub(crate) fn target(&self) -> &Tree {
        match &self.left {
            Left::Full(trees) | Left::Deltas(trees) | Left::Patch(trees) => {
                trees.last().unwrap_or(&self.old)
            }
            Left::Beside(tree) | Left::WipedBeside(tree) => tree,
            Left::Reset => &self.old,
        }
    }

    /// Does what the client does.
    pub(crate) fn leave(&self, recovery: &Recovery) {
        match &self.left {
            Left::Full(trees) => recovery.full_and_deltas(&trees.iter().collect::<Vec<_>>()),
            Left::Deltas(trees) => {
                let along: Vec<_> = [&self.old].into_iter().chain(trees).collect();
                recovery.deltas(&along);
            }
            Left::Patch(trees) => {
                let along: Vec<_> = [&self.old].into_iter().chain(trees).collect();
                recovery.patch_and_deltas(&along);
            }
            Left::Beside(tree) => self.leave_beside(recovery, tree, ""),
            Left::WipedBeside(tree) => self.leave_beside(recovery, tree, "format data\n"),
            Left::Reset => recovery.command("format data\nenable factory_wipe\n"),
        }
    }
}

impl Scenario {
    fn leave_beside(&self, recovery: &Recovery, tree: &Tree, first: &str) {
        let lines = recovery.drop_keyrings();
        let delta = recovery.drop_update("ubuntu-0.tar.xz", &between(&self.old, tree));
        let members: [(&str, &[u8]); 4] = [
            ("partitions/boot.img", b"a new kernel"),
            ("partitions/recovery.img", b"a new recovery"),
            ("data/user/album/sample", b"shipped\n"),
            ("data/.defaults", b"shipped too\n"),
        ];
        let device = members
            .iter()
            .fold(Tree::default(), |tree, (path, content)| {
                let named = |header: &mut Header| header.path = path.as_bytes().to_vec();
                tree.file(path, *content).with(path, named)
            });
        let device = recovery.drop_update("device-0.tar.xz", &device.tar());
        recovery.command(&format!(
            "{first}{lines}mount system\n{delta}{device}unmount system\n"
        ));
    }
}

/// Every scenario.
pub(crate) fn all() -> Vec<Scenario> {
    let layouts = &[
        Layout::Directory,
        Layout::DirectDirectory,
        Layout::Partition,
        Layout::DirectPartition,
        Layout::Disk,
        Layout::DirectDisk,
        Layout::Slots,
        Layout::SlotsDisk,
    ];
    let beside = &[
        Layout::Directory,
        Layout::DirectDirectory,
        Layout::Disk,
        Layout::Slots,
    ];
    vec![
        Scenario {
            name: "full",
            layouts,
            old: version(1),
            left: Left::Full(vec![version(2)]),
        },
        Scenario {
            name: "delta",
            layouts,
            old: version(1),
            left: Left::Deltas(vec![version(2)]),
        },
        Scenario {
            name: "patch",
            layouts,
            old: version(1),
            left: Left::Patch(vec![version(2), version(3)]),
        },
        Scenario {
            name: "full-and-deltas",
            layouts,
            old: version(1),
            left: Left::Full(vec![version(2), version(3), version(4)]),
        },
        Scenario {
            name: "beside",
            layouts: beside,
            old: version(1),
            left: Left::Beside(version(2)),
        },
        Scenario {
            name: "wiped",
            layouts: beside,
            old: version(1),
            left: Left::WipedBeside(version(2)),
        },
        Scenario {
            name: "reset",
            layouts: &[Layout::Directory, Layout::Disk],
            old: version(1),
            left: Left::Reset,
        },
    ]
}

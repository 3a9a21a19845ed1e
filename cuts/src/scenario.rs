//! What is updated to what, and on which devices: the data of all runs.
//!
//! A new scenario is an entry of [`all`]. What a device may have besides its system (a boot
//! partition, a second slot, user data that an update resets) is a [`Layout`] of its own, and part
//! of what `Device::look` sees.

use system_image_testkit::Recovery;
use system_image_testkit::tree::Tree;

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
}

impl Scenario {
    /// The system that the update leads to.
    pub(crate) fn target(&self) -> &Tree {
        let (Left::Full(trees) | Left::Deltas(trees)) = &self.left;
        trees.last().unwrap_or(&self.old)
    }

    /// Does what the client does.
    pub(crate) fn leave(&self, recovery: &Recovery) {
        match &self.left {
            Left::Full(trees) => recovery.full_and_deltas(&trees.iter().collect::<Vec<_>>()),
            Left::Deltas(trees) => {
                let along: Vec<_> = [&self.old].into_iter().chain(trees).collect();
                recovery.deltas(&along);
            }
        }
    }
}

/// Every scenario.
pub(crate) fn all() -> Vec<Scenario> {
    let layouts = &[Layout::Directory, Layout::Partition, Layout::Disk];
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
            name: "full-and-deltas",
            layouts,
            old: version(1),
            left: Left::Full(vec![version(2), version(3), version(4)]),
        },
    ]
}

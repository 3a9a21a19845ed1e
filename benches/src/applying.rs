//! A full image's way to the disk.

use anyhow::Context;
use camino::Utf8Path;
use std::fs;
use system_image_demo::measure::Cost;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::table::Table;
use crate::task::Task;

/// GNU tar with all that an image may hold.
const TAR: &str = "tar --extract --numeric-owner --same-permissions --xattrs --xattrs-include='*'";

pub(crate) fn run(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let packed = lab.path("v1.tar.xz")?;
    eprintln!("compressing an image");
    shell(
        "xz -T0 -6 --stdout \"$1\" > \"$2\"",
        &[images.whole.as_str(), packed.as_str()],
    )?;
    let whole = &images.whole;
    let size = Size(whole.metadata()?.len());

    let what = format!("full image of {size} from .tar.xz to the disk");
    let peer = format!("xz -dc \"$1\" | {TAR} --directory \"$2\"; sync --file-system \"$2\"");
    let names = [
        "liblzma and delta::apply, synced",
        "xz -dc | tar -x, synced",
    ];
    race(lab, &what, names, &packed, &peer, table)?;

    let what = format!("full image of {size} from .tar to the disk");
    let peer = format!("{TAR} --file \"$1\" --directory \"$2\"; sync --file-system \"$2\"");
    let names = ["delta::apply, synced", "tar -x, synced"];
    race(lab, &what, names, whole, &peer, table)?;
    Ok(fs::remove_file(packed)?)
}

fn race(
    lab: &Lab,
    what: &str,
    names: [&str; 2],
    archive: &Utf8Path,
    peer: &str,
    table: &mut Table,
) -> anyhow::Result<()> {
    let tree = lab.path("tree")?;
    // Each begins with an empty directory on a disk that has nothing left to write.
    let fresh = |work: &dyn Fn() -> anyhow::Result<Cost>| {
        fs::create_dir(&tree)?;
        settle()?;
        let cost = work()?;
        fs::remove_dir_all(&tree).context("cannot clean up")?;
        settle()?;
        Ok(cost)
    };
    let task = Task::Apply {
        archive: archive.to_owned(),
        root: tree.clone(),
    };
    let mut sides = [
        Side::new("ours", || fresh(&|| Ok(task.measure()?.1))),
        Side::new("peer", || {
            fresh(&|| shell(peer, &[archive.as_str(), tree.as_str()]))
        }),
    ];
    let costs = contest(what, lab.rounds, &mut sides)?;
    table.row(what, names.into_iter().zip(&costs), None);
    Ok(())
}

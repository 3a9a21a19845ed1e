//! Publishing a full image, which is compressing it for the most part.

use std::fmt::Write as _;
use std::fs;

use camino::Utf8Path;
use system_image_demo::server::Server;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::table::Table;

/// Level of `xz` that a server has when its configuration names none.
const LEVEL: u32 = 6;

/// Level of `xz` for those who publish seldom and to many.
const BEST: u32 = 9;

/// What `memory` in the configuration is set to for [`BEST`], in MiB: two threads need 2.5 GB.
const MEMORY: u32 = 3072;

pub(crate) fn run(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let image = &images.cut[0];
    let packed = lab.path("published.tar.xz")?;
    let place = lab.path("publishing")?;
    let mut sides = [
        Side::new("ours", || {
            let (server, _) = Server::set_up(&place, &lab.programs, "ed25519", LEVEL)?;
            settle()?;
            let (_, cost) = server.publish(image)?;
            fs::remove_dir_all(&place)?;
            Ok(cost)
        }),
        Side::new("xz", || {
            settle()?;
            let script = format!("xz -T0 -{LEVEL} --stdout \"$1\" > \"$2\"; sync \"$2\"");
            let cost = shell(&script, &[image.as_str(), packed.as_str()])?;
            fs::remove_file(&packed)?;
            Ok(cost)
        }),
    ];
    let size = Size(image.metadata()?.len());
    let what = format!("publishing an image of {size}, xz level {LEVEL}");
    let costs = contest(&what, lab.rounds, &mut sides)?;
    drop(sides);
    let names = [
        "system-image-server publish: read, hash, compress, sign",
        "xz -T0 at the same level, synced",
    ];
    table.row(&what, names.into_iter().zip(&costs), None);
    Ok(())
}

/// A whole image at the best level, once: it takes minutes.
pub(crate) fn whole(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let image = &images.whole;
    let place = lab.path("publishing")?;
    let (mut ours, packed) = (0, lab.path("published.tar.xz")?);
    let xz = |threads: u32, size: &mut u64| {
        settle()?;
        let script = format!("xz -T{threads} -{BEST} --stdout \"$1\" > \"$2\"; sync \"$2\"");
        let cost = shell(&script, &[image.as_str(), packed.as_str()])?;
        *size = packed.metadata()?.len();
        fs::remove_file(&packed)?;
        Ok(cost)
    };
    let (mut on_all, mut on_one) = (0, 0);
    let mut sides = [
        Side::new("ours", || {
            let (server, _) = Server::set_up(&place, &lab.programs, "ed25519", BEST)?;
            limit(&server.root, MEMORY)?;
            settle()?;
            let (_, cost) = server.publish(image)?;
            ours = server.payload_bytes()?;
            fs::remove_dir_all(&place)?;
            Ok(cost)
        }),
        Side::new("xz -T0", || xz(0, &mut on_all)),
        Side::new("xz -T1", || xz(1, &mut on_one)),
    ];
    let size = Size(image.metadata()?.len());
    let what = format!("publishing an image of {size}, xz level {BEST}");
    let costs = contest(&what, 1, &mut sides)?;
    drop(sides);
    let names = [
        &format!("system-image-server publish, memory = {MEMORY}: {ours} bytes"),
        &format!("xz -T0 at the same level, synced: {on_all} bytes"),
        &format!("xz -T1 at the same level, synced: {on_one} bytes"),
    ];
    table.row(
        &what,
        names.map(String::as_str).into_iter().zip(&costs),
        None,
    );
    Ok(())
}

/// Sets the memory that all work of a server together may use, in MiB.
fn limit(root: &Utf8Path, memory: u32) -> anyhow::Result<()> {
    let place = root.join("etc/config");
    let mut text = fs::read_to_string(&place)?;
    let lines = text.lines().filter(|line| !line.starts_with("memory"));
    let mut limited: String = lines.map(|line| format!("{line}\n")).collect();
    std::mem::swap(&mut text, &mut limited);
    writeln!(text, "memory = {memory}")?;
    Ok(fs::write(place, text)?)
}

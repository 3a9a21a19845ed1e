//! Publishing a full image, which is compressing it for the most part.

use std::fs;

use system_image_demo::server::Server;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::table::Table;

/// Level of `xz` that a server has when its configuration names none.
const LEVEL: u32 = 6;

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

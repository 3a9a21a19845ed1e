//! The upgrader as the recovery starts it, beside the tools that only unpack.

use std::fs;
use std::path::Path;

use camino::Utf8Path;
use system_image_demo::measure::{Cost, Step};
use system_image_report::Size;
use system_image_testkit::{LoopDevice, Recovery};

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::table::{Limit, Table};

/// Levels of `xz`, and the memory that the upgrader may take with each, in MiB: that of the
/// dictionary and a little.
const LEVELS: [(u8, f64); 2] = [(6, 24.0), (9, 90.0)];

/// Processor seconds that may be added to those of `xz -dc`, for so many bytes.
const ADDED: (f64, f64) = (4.0, 500e6);

pub(crate) fn run(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let whole = &images.whole;
    let bytes = whole.metadata()?.len();
    for (level, memory) in LEVELS {
        let packed = lab.path("ubuntu-full.tar.xz")?;
        eprintln!("compressing an image at level {level}");
        let script = format!("xz -T0 -{level} --stdout \"$1\" > \"$2\"");
        shell(&script, &[whole.as_str(), packed.as_str()])?;
        let device = Recovery::new(lab.programs.join("system-image-upgrader"));
        let Some(partition) = LoopDevice::attach(4 * bytes) else {
            eprintln!("not root: there is no partition, so the upgrader is not measured");
            return Ok(());
        };
        device.on_partition(&partition);
        race(lab, &device, &packed, (level, bytes, memory), table)?;
        drop(device);
        fs::remove_file(packed)?;
    }
    Ok(())
}

fn race(
    lab: &Lab,
    device: &Recovery,
    packed: &Utf8Path,
    (level, bytes, memory): (u8, u64, f64),
    table: &mut Table,
) -> anyhow::Result<()> {
    let keyrings = device.drop_keyrings();
    let archive = fs::read(packed)?;
    let update = device.drop_packed_update("ubuntu-full.tar.xz", &archive);
    drop(archive);
    let kept = device.path("kept");
    fs::create_dir(&kept)?;
    copy_all(&device.path("cache/recovery"), &kept)?;
    let commands = format!("{keyrings}format system\nmount system\n{update}unmount system\n");
    let tree = lab.path("tree")?;
    let upgrade = || -> anyhow::Result<Cost> {
        // The same files again, as the client leaves them.
        copy_all(&kept, &device.path("cache/recovery"))?;
        device.command(&commands);
        settle()?;
        let program = Step::new(lab.programs.join("system-image-upgrader"))?;
        let settings = device.settings();
        let command_file = device.command_file();
        let arguments = [Path::new("--config"), &settings, &command_file];
        Ok(program.args(arguments).succeed()?.1)
    };
    let peer = |script: &'static str| {
        let tree = &tree;
        move || -> anyhow::Result<Cost> {
            fs::create_dir(tree)?;
            settle()?;
            let cost = shell(script, &[packed.as_str(), tree.as_str()])?;
            fs::remove_dir_all(tree)?;
            Ok(cost)
        }
    };
    // Formatted once: what is measured is an update, and what is removed is the old system.
    upgrade()?;
    let what = format!(
        "full image of {} at xz -{level}, verified and installed",
        Size(bytes)
    );
    let mut sides = [
        Side::new("ours", upgrade),
        Side::new(
            "tar",
            peer(
                "tar -xJf \"$1\" --numeric-owner -p --directory \"$2\"; sync --file-system \"$2\"",
            ),
        ),
        Side::new("xz", peer("xz -dc \"$1\" > /dev/null")),
    ];
    let costs = contest(&what, lab.rounds, &mut sides)?;
    let names = ["system-image-upgrader", "tar -xJf, sync", "xz -dc"];
    let (tar, xz) = (costs[1].median(), costs[2].median());
    let limit = Limit {
        seconds: Some(tar.seconds),
        memory,
    };
    table.row_within(&what, names.into_iter().zip(&costs), limit);
    let (added, each) = ADDED;
    eprintln!(
        "processor seconds: {:.2} of at most {:.2}",
        costs[0].median().cpu,
        xz.cpu + added * bytes as f64 / each
    );
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

//! The delta between two images.

use anyhow::ensure;
use system_image_demo::measure::Step;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::table::{Reference, Table};
use crate::task::Task;

/// What the original needs for two archives of 326 MB.
const REFERENCE: Reference = Reference {
    cpu: (6.6, 6.6),
    memory: 69.0,
};

pub(crate) fn run(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let [base, target] = &images.cut;
    let out = lab.path("delta.tar")?;
    let tree = lab.path("delta-tree")?;
    std::fs::create_dir(&tree)?;
    shell(
        "tar --extract --numeric-owner --xattrs --xattrs-include='*' --directory \"$1\" --file \"$2\"",
        &[tree.as_str(), target.as_str()],
    )?;
    settle()?;

    let task = Task::Delta {
        base: base.clone(),
        target: target.clone(),
        out: out.clone(),
    };
    let mut bytes = String::new();
    let mut sides = [
        Side::new("ours", || {
            let (printed, cost) = task.measure()?;
            bytes = printed;
            settle()?;
            Ok(cost)
        }),
        Side::new("tar", || {
            let tar = Step::new("tar")?.args(["--diff", "--numeric-owner", "--directory"]);
            let tar = tar.args([tree.as_str(), "--file", base.as_str()]);
            let (output, cost) = tar.finish(true)?;
            // 1: there are differences.
            ensure!(
                matches!(output.status.code(), Some(0..=2)),
                "`tar --diff` failed: {}",
                output.status
            );
            Ok(cost)
        }),
    ];
    let len = base.metadata()?.len();
    let what = format!("delta between two archives of {}, uncompressed", Size(len));
    let costs = contest(&what, lab.rounds, &mut sides)?;
    drop(sides);
    let names = [
        "delta-build, writes the delta",
        "tar --diff with an unpacked tree, writes nothing",
    ];
    table.row(&what, names.into_iter().zip(&costs), Some(REFERENCE));
    eprintln!("the delta has {}", Size(bytes.trim().parse()?));
    std::fs::remove_dir_all(&tree)?;
    std::fs::remove_file(&out)?;
    Ok(())
}

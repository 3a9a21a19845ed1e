//! The delta between two images.

use std::fs;

use anyhow::{Context, ensure};
use camino::Utf8Path;
use liblzma::write::XzEncoder;
use system_image_demo::measure::Step;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::python;
use crate::table::{Reference, Table};
use crate::task::Task;

/// What the original needs for two archives of 326 MB.
const REFERENCE: Reference = Reference {
    cpu: (6.6, 6.6),
    memory: 69.0,
};

/// A plain implementation of the same.
const CLASSIC: &str = include_str!("classic_delta.py");

/// Level of `xz` at which the deltas' sizes are compared.
const LEVEL: u32 = 6;

pub(crate) fn run(lab: &Lab, images: &Images, table: &mut Table) -> anyhow::Result<()> {
    let [base, target] = &images.cut;
    let out = lab.path("delta.tar")?;
    let tree = lab.path("delta-tree")?;
    fs::create_dir(&tree)?;
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
    let classic = lab.path("classic.tar")?;
    let mut sides = vec![
        Side::new("ours", || {
            let (_, cost) = task.measure()?;
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
    if python::is_there() {
        sides.push(Side::new("python3", || {
            let arguments = [base.as_str(), target.as_str(), classic.as_str()];
            let (_, cost) = python::step(CLASSIC, &arguments)?.succeed()?;
            settle()?;
            Ok(cost)
        }));
    }
    let len = base.metadata()?.len();
    let what = format!("delta between two archives of {}, uncompressed", Size(len));
    let costs = contest(&what, lab.rounds, &mut sides)?;
    drop(sides);
    let names = [
        "delta-build, writes the delta",
        "tar --diff with an unpacked tree, writes nothing",
        "python3 tarfile, writes the delta",
    ];
    table.row(&what, names.into_iter().zip(&costs), Some(REFERENCE));
    for (name, delta) in [("ours", &out), ("python3", &classic)] {
        if delta.exists() {
            let (raw, packed) = (delta.metadata()?.len(), packed(delta)?);
            let level = format!("xz level {LEVEL}");
            eprintln!("the delta, {name}: {raw} bytes, {packed} with {level}");
        }
    }
    fs::remove_dir_all(&tree)?;
    fs::remove_file(&out)?;
    let _ = fs::remove_file(&classic);
    Ok(())
}

/// How many bytes a file has when it is compressed.
fn packed(file: &Utf8Path) -> anyhow::Result<u64> {
    let mut input = fs::File::open(file)?;
    let mut encoder = XzEncoder::new(std::io::sink(), LEVEL);
    std::io::copy(&mut input, &mut encoder).with_context(|| format!("cannot read `{file}`"))?;
    encoder.try_finish()?;
    Ok(encoder.total_out())
}

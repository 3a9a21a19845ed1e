//! The delta between two images.

use std::fs;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use liblzma::write::XzEncoder;
use system_image_delta_build::Times;
use system_image_demo::measure::Step;
use system_image_report::Size;

use crate::contest::{Side, contest};
use crate::lab::{Images, Lab, settle, shell};
use crate::python;
use crate::table::{Reference, Table};
use crate::task::{CONTENT, EXACT, Task};

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
    let tree = lab.path("delta-tree")?;
    fs::create_dir(&tree)?;
    shell(
        "tar --extract --numeric-owner --xattrs --xattrs-include='*' --directory \"$1\" --file \"$2\"",
        &[tree.as_str(), target.as_str()],
    )?;
    settle()?;

    let ours = |times, out: &Utf8PathBuf| {
        let task = Task::Delta {
            times,
            base: base.clone(),
            target: target.clone(),
            out: out.clone(),
        };
        move || {
            let (_, cost) = task.measure()?;
            settle()?;
            Ok(cost)
        }
    };
    let exact = lab.path("exact.tar")?;
    let content = lab.path("content.tar")?;
    let classic = lab.path("classic.tar")?;
    let mut sides = vec![
        Side::new(EXACT, ours(Times::Exact, &exact)),
        Side::new(CONTENT, ours(Times::Ignored, &content)),
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
        "delta-build, the same with `delta_times = content`",
        "tar --diff with an unpacked tree, writes nothing",
        "python3 tarfile, writes the delta",
    ];
    table.row(&what, names.into_iter().zip(&costs), Some(REFERENCE));
    for (name, delta) in [(EXACT, &exact), (CONTENT, &content), ("python3", &classic)] {
        if delta.exists() {
            let (raw, packed) = (delta.metadata()?.len(), packed(delta)?);
            eprintln!("the delta, {name}: {raw} bytes, {packed} with xz level {LEVEL}");
            fs::remove_file(delta)?;
        }
    }
    fs::remove_dir_all(&tree)?;
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

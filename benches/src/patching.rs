//! Patches between two images, beside what others make for the same update.

mod ways;

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_demo::measure::Cost;

use crate::contest::{Costs, Side, contest};
use crate::lab::{Lab, settle, shell};
use crate::table::Table;
use ways::{SCRIPTS, WAYS, Way};

/// Measures every update of which both images are there.
pub(crate) fn run(lab: &Lab, directory: &Utf8Path, table: &mut Table) -> anyhow::Result<()> {
    let ways: Vec<_> = WAYS.iter().filter(|way| is_there(way.program)).collect();
    let helpers = lab.path("patch-helpers")?;
    fs::create_dir(&helpers)?;
    for (name, text) in SCRIPTS {
        fs::write(helpers.join(name), text)?;
    }
    let server = "system-image-server";
    std::os::unix::fs::symlink(lab.programs.join(server), helpers.join(server))?;
    let mut measured = false;
    for (base, target) in [("v1", "v2"), ("v2", "v3"), ("v1", "v4")] {
        for kind in ["tar", "ext4", "squashfs"] {
            let base = directory.join(format!("{base}.{kind}"));
            let target = directory.join(format!("{target}.{kind}"));
            if base.is_file() && target.is_file() {
                measured = true;
                let able = |way: &&&Way| kind == "tar" || !way.only_tar;
                let ways: Vec<_> = ways.iter().filter(able).copied().collect();
                update(lab, [&base, &target, &helpers], &ways, table)?;
            }
        }
    }
    anyhow::ensure!(measured, "no two images of an update are in `{directory}`");
    Ok(())
}

/// What a way came to.
struct Come {
    /// Its name, with the length of its patch.
    name: String,
    made: Costs,
    /// Nothing of one that is only looked at for its size.
    applied: Option<Costs>,
}

fn update(
    lab: &Lab,
    images: [&Utf8Path; 3],
    ways: &[&Way],
    table: &mut Table,
) -> anyhow::Result<()> {
    let what = |verb: &str| {
        let name = |path: &Utf8Path| path.file_name().unwrap_or_default().to_owned();
        let [base, target, _] = images.map(name);
        format!("patch from {base} to {target}: {verb}")
    };
    let mut all = Vec::new();
    for (at, way) in ways.iter().enumerate() {
        let directory = lab.path(&format!("patch-{at}"))?;
        fs::create_dir(&directory)?;
        let come = one(way, images, &directory, &what);
        fs::remove_dir_all(&directory)?;
        match come {
            Ok(come) => all.push(come),
            // What cannot do this does not take from the others what they did in an hour.
            Err(error) if !way.is_ours() => eprintln!("left out, since it failed: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    let made = all.iter().map(|come| (come.name.as_str(), &come.made));
    table.row(&what("made"), made, None);
    let applied = all
        .iter()
        .filter_map(|come| Some((come.name.as_str(), come.applied.as_ref()?)));
    table.row(&what("applied"), applied, None);
    Ok(())
}

fn one(
    way: &Way,
    [base, target, helpers]: [&Utf8Path; 3],
    directory: &Utf8Path,
    what: &dyn Fn(&str) -> String,
) -> anyhow::Result<Come> {
    let patch = directory.join("patch");
    let arguments = [base, target, &patch, directory, helpers].map(ToOwned::to_owned);
    script(way.prepare, &arguments).with_context(|| way.name.to_owned())?;
    settle()?;
    let cost = |verb: &str, text| -> anyhow::Result<Costs> {
        let mut sides = [Side::new(way.name, || script(text, &arguments))];
        let mut costs = contest(&format!("{}, {}", what(verb), way.name), 1, &mut sides)?;
        costs.pop().context("a side has costs")
    };
    let made = cost("made", way.make)?;
    let applied = match way.apply {
        "" => None,
        text => Some(cost("applied", text)?),
    };
    Ok(Come {
        name: format!("{}: {} bytes", way.name, patch.metadata()?.len()),
        made,
        applied,
    })
}

/// Whether a program can be run; what has blanks is a command that must succeed.
fn is_there(program: &str) -> bool {
    let look = if program.contains(' ') {
        program.to_owned()
    } else {
        format!("command -v {program}")
    };
    let is_there = shell(&format!("{look} > /dev/null 2>&1"), &[]).is_ok();
    if !is_there {
        eprintln!("left out, since it is not installed: {program}");
    }
    is_there
}

fn script(text: &str, arguments: &[Utf8PathBuf; 5]) -> anyhow::Result<Cost> {
    let arguments: Vec<_> = arguments.iter().map(|path| path.as_str()).collect();
    shell(if text.is_empty() { "true" } else { text }, &arguments)
}

//! Patches between two images, beside what others make for the same update.

mod ways;

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_demo::measure::Cost;

use crate::contest::{Side, contest};
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

fn update(
    lab: &Lab,
    [base, target, helpers]: [&Utf8Path; 3],
    ways: &[&Way],
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut scripts = Vec::new();
    for (at, way) in ways.iter().enumerate() {
        let directory = lab.path(&format!("patch-{at}"))?;
        fs::create_dir(&directory)?;
        let patch = directory.join("patch");
        let arguments = [base, target, &patch, &directory, helpers].map(ToOwned::to_owned);
        script(way.prepare, &arguments).with_context(|| way.name.to_owned())?;
        scripts.push(arguments);
    }
    settle()?;
    let what = |verb: &str| {
        let name = |path: &Utf8Path| path.file_name().unwrap_or_default().to_owned();
        format!("patch from {} to {}: {verb}", name(base), name(target))
    };
    let (mut making, mut applying) = (Vec::new(), Vec::new());
    for (way, arguments) in ways.iter().zip(&scripts) {
        making.push(Side::new(way.name, || script(way.make, arguments)));
        if !way.apply.is_empty() {
            applying.push(Side::new(way.name, || script(way.apply, arguments)));
        }
    }
    let made = contest(&what("made"), 1, &mut making)?;
    let applied = contest(&what("applied"), 1, &mut applying)?;
    drop((making, applying));
    let mut names = Vec::new();
    for (way, [_, _, patch, ..]) in ways.iter().zip(&scripts) {
        names.push(format!("{}: {} bytes", way.name, patch.metadata()?.len()));
    }
    let shown = |only_applied: bool| {
        let both = ways.iter().zip(&names);
        both.filter(move |(way, _)| !only_applied || !way.apply.is_empty())
            .map(|(_, name)| name.as_str())
    };
    table.row(&what("made"), shown(false).zip(&made), None);
    table.row(&what("applied"), shown(true).zip(&applied), None);
    for [_, _, _, directory, _] in &scripts {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
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

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

/// A way with what it was run with, and what came of it.
struct Run<'a> {
    way: &'a Way,
    /// What scripts are given.
    arguments: [Utf8PathBuf; 5],
    /// The way with the length of its patch.
    name: String,
    made: Costs,
    /// Nothing of one that is only looked at for its size.
    applied: Option<Costs>,
}

fn update(
    lab: &Lab,
    [base, target, helpers]: [&Utf8Path; 3],
    ways: &[&Way],
    table: &mut Table,
) -> anyhow::Result<()> {
    let what = |verb: &str| {
        let name = |path: &Utf8Path| path.file_name().unwrap_or_default().to_owned();
        format!("patch from {} to {}: {verb}", name(base), name(target))
    };
    let mut runs = Vec::new();
    for (at, way) in ways.iter().enumerate() {
        let directory = lab.path(&format!("patch-{at}"))?;
        fs::create_dir(&directory)?;
        let patch = directory.join("patch");
        let arguments = [base, target, &patch, &directory, helpers].map(ToOwned::to_owned);
        let run = Run {
            way,
            arguments,
            name: way.name.to_owned(),
            made: Costs::default(),
            applied: None,
        };
        runs.extend(run.step(|run| run.make(&what("made")))?);
    }
    // One after the other, as a machine may be faster in an hour than it is now.
    let mut all = Vec::new();
    for run in runs {
        all.extend(run.step(|run| run.apply(&what("applied")))?);
    }
    let made = all.iter().map(|run| (run.name.as_str(), &run.made));
    table.row(&what("made"), made, None);
    let applied = all
        .iter()
        .filter_map(|run| Some((run.name.as_str(), run.applied.as_ref()?)));
    table.row(&what("applied"), applied, None);
    for run in all {
        fs::remove_dir_all(run.directory())?;
    }
    Ok(())
}

impl Run<'_> {
    fn directory(&self) -> &Utf8Path {
        &self.arguments[3]
    }

    /// Takes a step. A peer that fails is left out: it does not take from the others what they did in an
    /// hour.
    fn step(
        mut self,
        take: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Self>> {
        match take(&mut self) {
            Ok(()) => Ok(Some(self)),
            Err(error) if self.way.is_ours() => Err(error),
            Err(error) => {
                eprintln!("left out, since it failed: {error:#}");
                fs::remove_dir_all(self.directory())?;
                Ok(None)
            }
        }
    }

    fn make(&mut self, what: &str) -> anyhow::Result<()> {
        script(self.way.prepare, &self.arguments).with_context(|| self.way.name.to_owned())?;
        settle()?;
        self.made = self.cost(what, self.way.make)?;
        let patch = self.arguments[2].metadata()?;
        self.name = format!("{}: {} bytes", self.way.name, patch.len());
        Ok(())
    }

    fn apply(&mut self, what: &str) -> anyhow::Result<()> {
        if !self.way.apply.is_empty() {
            self.applied = Some(self.cost(what, self.way.apply)?);
        }
        Ok(())
    }

    fn cost(&self, what: &str, text: &str) -> anyhow::Result<Costs> {
        let mut sides = [Side::new(self.way.name, || script(text, &self.arguments))];
        let costs = contest(&format!("{what}, {}", self.way.name), 1, &mut sides)?;
        costs.into_iter().next().context("a side has costs")
    }
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

//! `cargo xtask cuts`: cuts updates off everywhere and lets the recovery start the upgrader again.
//! Each device must end with its old system or with the new one, whole, without help.
//! `docs/decisions/power-cuts.md` tells what is simulated and what is not.

mod device;
mod lab;
mod power;
mod record;
mod recorder;
mod scenario;
mod suite;
mod summary;
mod trace;
mod trees;
mod verdict;
mod workers;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use system_image_report::Progress;

use crate::lab::{Lab, is_root};
use crate::suite::{Suite, Way, prepare};
use crate::summary::{Failure, Summary, Tally};
use crate::workers::spread;

/// States of each suite in the short form, spread evenly.
const SHORT: usize = 8;

/// Cut updates off everywhere, and see what becomes of the device
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cuts")]
struct Options {
    /// Only some states of each suite, for less than a minute
    #[arg(long)]
    short: bool,
    /// Only suites with this in their name, which is like `delta/disk/power-lazy`
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only this state; `--only` must leave one suite
    #[arg(long, value_name = "N", requires = "only")]
    state: Option<usize>,
    /// Threads; as many as there are processors unless given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// What random choices begin with
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Program to cut off, in place of the upgrader that was built with this
    #[arg(long, value_name = "PROGRAM")]
    upgrader: Option<PathBuf>,
    /// Directory for the recordings of power cuts that failed; `target/cuts` unless given
    #[arg(long, value_name = "DIR")]
    kept: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("{}", system_image_report::describe(&error, None));
            ExitCode::FAILURE
        }
    }
}

/// Whether every state ended well.
fn run(options: &Options) -> anyhow::Result<bool> {
    let begun = Instant::now();
    // This program stands where the others were built: target/<profile>/.
    let this = std::env::current_exe()?;
    let programs = this.parent().context("a program is in a directory")?;
    let built = programs.join("system-image-upgrader");
    let upgrader = options.upgrader.clone().unwrap_or(built);
    let kept = options.kept.clone();
    let kept = kept.unwrap_or_else(|| programs.with_file_name("cuts"));
    let lab = Lab::new(upgrader, options.seed)?;
    trace::set_up(&lab)?;
    let all = || available_parallelism().ok();
    let jobs = options.jobs.or_else(all).map_or(1, NonZeroUsize::get);
    let suites = suites(options, &lab, jobs, &kept)?;
    let states = states(options, &suites)?;
    let (tallies, failures) = try_all(&lab, jobs, &suites, &states, &kept)?;
    let good = failures.is_empty();
    let summary = Summary::new(options.seed, begun.elapsed(), tallies, failures);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{summary}");
    }
    ensure!(!Lab::is_stopped(), "stopped by a signal");
    Ok(good)
}

/// Prepares every suite that is wanted and can be had.
fn suites(options: &Options, lab: &Lab, jobs: usize, kept: &Path) -> anyhow::Result<Vec<Suite>> {
    if !is_root() {
        eprintln!("not root: only devices in directories, without partitions and power cuts");
    }
    let is_wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    let scenarios = scenario::all();
    let mut wanted = Vec::new();
    for scenario in &scenarios {
        for &layout in scenario.layouts {
            let name = |way: &Way| suite::name(scenario, layout, *way);
            let any = Way::of(layout).iter().any(|way| is_wanted(&name(way)));
            if any && (is_root() || !layout.needs_root()) {
                wanted.push((scenario, layout));
            }
        }
    }
    // A single state is repeated on what was kept of the run that found it.
    let kept = options.state.map(|_| kept);
    let mut progress = Progress::counting("preparing", wanted.len() as u64);
    let mut suites = Vec::new();
    let mut failed = None;
    spread(
        lab,
        jobs,
        &wanted,
        |worker, &(scenario, layout)| prepare(worker.lab, scenario, layout, kept),
        |(scenario, layout), prepared| {
            progress.add(1);
            match prepared {
                Ok(prepared) => suites.extend(prepared),
                Err(error) => {
                    let what = format!("cannot prepare {}/{}", scenario.name, layout.name());
                    failed = Some(error.context(what));
                }
            }
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    suites.retain(|suite| is_wanted(&suite.name));
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        !suites.is_empty() || Lab::is_stopped(),
        "no suite has that name"
    );
    Ok(suites)
}

/// A suite and one of its states, by number.
type State = (usize, usize);

fn states(options: &Options, suites: &[Suite]) -> anyhow::Result<Vec<State>> {
    if let Some(state) = options.state {
        let [suite] = suites else {
            let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
            bail!("`--state` is of one suite, not of {}", names.join(", "));
        };
        ensure!(
            state < suite.len(),
            "`{}` has {} states",
            suite.name,
            suite.len()
        );
        return Ok(vec![(0, state)]);
    }
    let mut states = Vec::new();
    for (number, suite) in suites.iter().enumerate() {
        let tried = if options.short {
            SHORT.min(suite.len())
        } else {
            suite.len()
        };
        // Evenly, and others with another seed.
        let shift = usize::try_from(options.seed).unwrap_or(0);
        states.extend(
            (0..tried).map(|nth| (number, (nth * suite.len() / tried + shift) % suite.len())),
        );
    }
    Ok(states)
}

fn try_all(
    lab: &Lab,
    jobs: usize,
    suites: &[Suite],
    states: &[State],
    kept: &Path,
) -> anyhow::Result<(Vec<Tally>, Vec<Failure>)> {
    let tally = |suite: &Suite| Tally {
        suite: suite.name.clone(),
        known: suite.len(),
        ..Tally::default()
    };
    let mut tallies: Vec<_> = suites.iter().map(tally).collect();
    let mut failures = Vec::new();
    let mut progress = Progress::counting("cutting off", states.len() as u64);
    spread(
        lab,
        jobs,
        states,
        |worker, &(suite, state)| {
            let (lab, suite) = (worker.lab, &suites[suite]);
            suite.run(lab, worker.device(suite.layout), state)
        },
        |&(number, state), ended| {
            progress.add(1);
            if let Err(error) = &ended {
                failures.push(tell(lab, &suites[number], state, error, kept));
            }
            tallies[number].count(ended.ok());
        },
    )?;
    Ok((tallies, failures))
}

/// Prints a failure and how to repeat it, and keeps what that takes.
fn tell(lab: &Lab, suite: &Suite, state: usize, error: &anyhow::Error, kept: &Path) -> Failure {
    let failure = Failure {
        suite: suite.name.clone(),
        state,
        what: suite.describe(state),
        why: format!("{error:#}"),
    };
    let (name, seed) = (&suite.name, lab.seed());
    eprintln!(
        "\n{name} state {state}: {}\n  {}\n  repeat: cargo xtask cuts --only {name} --state {state} --seed {seed}",
        failure.what,
        failure.why.replace('\n', "\n  "),
    );
    match suite.keep(kept, state) {
        Ok(None) => {}
        Ok(Some(place)) => eprintln!("  kept: {}", place.display()),
        Err(error) => eprintln!("  nothing is kept: {error:#}"),
    }
    failure
}

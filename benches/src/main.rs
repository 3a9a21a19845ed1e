//! `cargo xtask bench`: measures against named peers in the same run, and against what the
//! original is known to need. Prints one table; `docs/benchmarks.md` tells how to read it.

mod applying;
mod contest;
mod delta;
mod downloading;
mod fetching;
mod lab;
mod large_tree;
mod nginx;
mod offer;
mod patching;
mod planning;
mod process;
mod publishing;
mod python;
mod service;
mod serving;
mod table;
mod task;
mod tree;
mod upgrading;

use std::process::ExitCode;

use anyhow::ensure;
use camino::Utf8PathBuf;
use clap::Parser;
use system_image_demo::measure;

use crate::lab::Lab;
use crate::offer::Offer;
use crate::table::Table;
use crate::task::Task;

/// Where images are expected when none are named: nowhere, so that the message says how to make
/// them.
const NO_IMAGES: &str = "/nonexistent";

/// Measure against named peers
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Directory with `v1.tar` and `v2.tar`, two versions of a root file system
    #[arg(default_value = NO_IMAGES)]
    images: Utf8PathBuf,
    /// One round each, to see that everything runs
    #[arg(long)]
    quick: bool,
    /// Only rows whose group has this in its name: planning, service, delta, patches, apply,
    /// upgrade, publish, level-9, fetch, download, serve, tree
    #[arg(long, value_name = "GROUP")]
    only: Option<String>,
    /// Directory for scratch files: about 4 GB, removed at the end
    #[arg(long, value_name = "DIR")]
    scratch: Option<Utf8PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = measure::as_copy() {
        return code;
    }
    let done = match Task::of_arguments() {
        Some(task) => task.and_then(|task| task.run()),
        None => run(&Options::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", system_image_report::describe(&error, None));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |group: &str| {
        options
            .only
            .as_ref()
            .is_none_or(|only| group.contains(only))
    };
    let needs_canonical = ["delta", "apply", "upgrade", "publish", "level-9"]
        .into_iter()
        .any(wanted);
    for name in ["v1.tar", "v2.tar"] {
        ensure!(
            !needs_canonical || options.images.join(name).is_file(),
            "there is no `{}`: give the directory of two tar archives of a root file system, \
             `v1.tar` and `v2.tar`, for example two releases by `mmdebstrap bookworm v1.tar`; \
             `--only` with planning, service, fetch, download, serve or tree needs none, and with \
             patches any two images of an update",
            options.images.join(name)
        );
    }
    let lab = Lab::new(options.scratch.as_deref(), options.quick)?;
    let mut table = Table::default();
    if wanted("planning") || wanted("service") {
        let offer = Offer::set_up(&lab, planning::DRY_RUN_IMAGES)?;
        if wanted("planning") {
            planning::run(&lab, &offer, &mut table)?;
        }
        if wanted("service") {
            service::run(&lab, &offer, &mut table)?;
        }
    }
    if needs_canonical {
        let images = lab.images(&options.images)?;
        if wanted("delta") {
            delta::run(&lab, &images, &mut table)?;
        }
        if wanted("apply") {
            applying::run(&lab, &images, &mut table)?;
        }
        if wanted("upgrade") {
            upgrading::run(&lab, &images, &mut table)?;
        }
        if wanted("publish") {
            publishing::run(&lab, &images, &mut table)?;
        }
        if wanted("level-9") {
            publishing::whole(&lab, &images, &mut table)?;
        }
    }
    if wanted("patches") {
        patching::run(&lab, &options.images, &mut table)?;
    }
    if wanted("fetch") {
        fetching::run(&lab, &mut table)?;
    }
    if wanted("download") {
        downloading::run(&lab, &mut table)?;
    }
    if wanted("serve") {
        serving::run(&lab, &mut table)?;
    }
    if wanted("tree") {
        tree::run(&lab, &mut table)?;
    }
    table.print();
    Ok(())
}

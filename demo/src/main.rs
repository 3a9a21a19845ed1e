//! `cargo xtask demo`: runs the journey and ends with a table of what it cost.

use std::process::ExitCode;

use anyhow::Context;
use camino::Utf8PathBuf;
use system_image_demo::images::Scale;
use system_image_demo::{journey, measure};

fn main() -> ExitCode {
    if let Some(code) = measure::as_copy() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Scale::Minimal,
        ["--small"] => Scale::Small,
        _ => {
            eprintln!("usage: cargo xtask demo [--small]");
            return ExitCode::from(2);
        }
    };
    match run(scale) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", system_image_report::describe(&error, None));
            ExitCode::FAILURE
        }
    }
}

fn run(scale: Scale) -> anyhow::Result<()> {
    // This program stands where the others were built: target/<profile>/.
    let this = Utf8PathBuf::try_from(std::env::current_exe()?)?;
    let programs = this.parent().context("a program is in a directory")?;
    let target = programs
        .parent()
        .context("the profile's directory is below target")?;
    journey::run(target, programs, scale)
}

//! The project's own commands: `cargo xtask setup|demo|test|cuts|bench|dist`.

mod setup;
mod steps;

use std::process::ExitCode;

use self::steps::{Failed, built, cargo, run};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup            install the Debian packages that are missing (as root), or say which
  demo [--small]   the whole journey of an image on this machine, from build to update
  test             everything that must pass before a change lands
  cuts [OPTIONS]   cut updates off everywhere; `--help` lists the options
  bench [IMAGES]   measure against named peers; IMAGES holds v1.tar and v2.tar
  dist DIR         write man pages and completions below DIR, for a package
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["setup"] => setup::setup(),
        ["demo", ref more @ ..] => demo(more),
        ["test"] => test(),
        ["cuts", ref more @ ..] => cuts(more),
        ["bench", ref more @ ..] => bench(more),
        ["dist", directory] => dist(directory),
        ["--help" | "-h" | "help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("error: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &[&str]) -> Result<(), Failed> {
    setup::setup()?;
    cargo(&["build", "--workspace", "--bins"])?;
    built("debug", "system-image-demo", arguments)
}

/// Everything is built once, with the features of all of it: asking cargo for single packages in
/// between would build their dependencies again. The runner of the tests comes last, so that its
/// summary does.
fn test() -> Result<(), Failed> {
    setup::setup()?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo(&["build", "--workspace", "--all-targets"])?;
    built("debug", "system-image-demo", &["--small"])?;
    built("debug", "system-image-cuts", &["--short"])?;
    cargo(&["test", "--workspace", "--doc"])?;
    if run("cargo", &["nextest", "--version"]).is_ok() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--all-targets", "--no-fail-fast"])
    }
}

fn cuts(arguments: &[&str]) -> Result<(), Failed> {
    setup::setup()?;
    cargo(&["build", "--workspace", "--bins"])?;
    built("debug", "system-image-cuts", arguments)
}

fn bench(arguments: &[&str]) -> Result<(), Failed> {
    setup::setup()?;
    cargo(&["build", "--release", "--workspace", "--bins"])?;
    // Once more as a device gets it: features that the server asks of shared libraries, a
    // multi-threaded runtime above all, cost memory there.
    cargo(&["build", "--release", "--package", "system-image-client"])?;
    built("release", "system-image-bench", arguments)
}

fn dist(directory: &str) -> Result<(), Failed> {
    cargo(&["build", "--package", "system-image-manual"])?;
    built("debug", "system-image-manual", &[directory])
}

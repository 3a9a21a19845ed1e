//! Running one program after the other.

use std::fmt;
use std::process::{Command, Stdio};

/// A step that did not end well.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the cargo that runs this, and shows what it runs.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), Failed> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    eprintln!("+ cargo {}", arguments.join(" "));
    finish(Command::new(cargo).args(arguments), "cargo", arguments)
}

/// Runs a program of this workspace that was built.
pub(crate) fn built(profile: &str, program: &str, arguments: &[&str]) -> Result<(), Failed> {
    // This program stands in `target/debug`.
    let this = std::env::current_exe().map_err(|error| Failed(error.to_string()))?;
    let target = this.ancestors().nth(2).unwrap_or(&this);
    let path = target.join(profile).join(program);
    eprintln!("+ {program} {}", arguments.join(" "));
    finish(Command::new(path).args(arguments), program, arguments)
}

/// Runs a program and hides what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    finish(&mut command, program, arguments)
}

fn finish(command: &mut Command, program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let shown = || format!("{program} {}", arguments.join(" "));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("`{}` failed: {status}", shown()))),
        Err(error) => Err(Failed(format!("cannot run `{}`: {error}", shown()))),
    }
}

//! Runs a program and tells what it cost.
//!
//! The kernel tells the peak memory of a process's finished children only as a maximum over all of
//! them. So this program starts itself again for each step: that copy has one child, the step.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// The first argument of the copy; the rest is the program to run.
const MEASURE: &str = "--measure-one-child";

/// Where the copy writes what it measured: a descriptor of its own would be closed by some
/// programs, and both standard streams belong to the step.
const REPORT: &str = "SYSTEM_IMAGE_MEASURE_REPORT";

/// What a step cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds by the wall.
    pub seconds: f64,
    /// Seconds of processors, in user space and in the kernel.
    pub cpu: f64,
    /// Peak of resident memory in bytes, the largest process of the step.
    pub memory: u64,
}

/// If this process is such a copy: runs the program and returns its exit code.
pub fn as_copy() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != MEASURE {
        return None;
    }
    let report = std::env::var_os(REPORT)?;
    let program = arguments.next()?;
    let started = Instant::now();
    let status = Command::new(&program)
        .args(arguments)
        .env_remove(REPORT)
        .status();
    let seconds = started.elapsed().as_secs_f64();
    let code = match &status {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(255),
        Err(error) => {
            eprintln!("cannot run `{}`: {error}", program.display());
            127
        }
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let time = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cost = Cost {
        seconds,
        cpu: time(usage.user_time()) + time(usage.system_time()),
        memory: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    };
    let written = serde_json::to_vec(&cost).map(|bytes| fs::write(report, bytes));
    matches!(written, Ok(Ok(()))).then_some(ExitCode::from(code))
}

/// A program to run, measured.
#[derive(Debug)]
pub struct Step {
    program: String,
    command: Command,
    report: std::path::PathBuf,
    input: Option<Vec<u8>>,
}

impl Step {
    /// Of this program.
    pub fn new(program: impl AsRef<OsStr>) -> anyhow::Result<Self> {
        let report = std::env::temp_dir().join(format!(
            "system-image-measure-{}-{:?}",
            std::process::id(),
            Instant::now()
        ));
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(MEASURE)
            .arg(program.as_ref())
            .env(REPORT, &report);
        let program = program.as_ref().to_string_lossy().into_owned();
        Ok(Self {
            program,
            command,
            report,
            input: None,
        })
    }

    /// With these arguments, after those given before.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With this on its standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs it to its end, whatever that is; its standard output is returned, its standard error
    /// as `quiet` says.
    pub fn finish(mut self, quiet: bool) -> anyhow::Result<(Output, Cost)> {
        let stdin = if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let stderr = if quiet {
            Stdio::piped()
        } else {
            Stdio::inherit()
        };
        self.command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr);
        let failed = || format!("cannot run `{}`", self.program);
        let mut child = self.command.spawn().with_context(failed)?;
        if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), &self.input) {
            stdin.write_all(bytes).with_context(failed)?;
        }
        let output = child.wait_with_output().with_context(failed)?;
        let cost = fs::read(&self.report).with_context(failed)?;
        fs::remove_file(&self.report).with_context(failed)?;
        Ok((output, serde_json::from_slice(&cost)?))
    }

    /// Runs it; it must succeed. Returns its standard output.
    pub fn succeed(self) -> anyhow::Result<(String, Cost)> {
        let program = self.program.clone();
        let (output, cost) = self.finish(false)?;
        if !output.status.success() {
            bail!("`{program}` failed: {}", output.status);
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), cost))
    }
}

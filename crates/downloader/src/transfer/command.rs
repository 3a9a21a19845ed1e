//! The command that gets a finished file (specification, section 16).

use std::process::Stdio;

use camino::Utf8Path;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::job::failure::Failure;

/// The word that becomes the file's path.
const FILE: &str = "$file";

/// Kept of what a command says, in bytes; the rest is read and dropped.
const MAX_OUTPUT: usize = 64 << 10;

/// Runs it, without a shell. The outer error is that it could not be run, and the file stays; the inner
/// that it failed. It ends with the future.
pub async fn run(words: &[String], file: &Utf8Path) -> Result<Result<(), Failure>, Failure> {
    let word = |word: &String| match word.as_str() {
        FILE => file.to_string(),
        other => other.to_owned(),
    };
    let mut words = words.iter().map(word);
    let program = words.next().filter(|program| !program.is_empty());
    let program = program.ok_or_else(|| Failure::not_run("the command is empty"))?;
    let mut command = Command::new(&program);
    command.args(words).kill_on_drop(true);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let not_run = |error: std::io::Error| Failure::not_run(format!("{program}: {error}"));
    let mut child = command.spawn().map_err(not_run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr, status) = tokio::join!(drained(stdout), drained(stderr), child.wait());
    let status = status.map_err(not_run)?;
    Ok(if status.success() {
        Ok(())
    } else {
        Err(Failure::command(status.code(), stdout, stderr))
    })
}

/// Reads to the end; returns the beginning.
async fn drained(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = vec![0; 4096];
    while let Ok(len @ 1..) = output.read(&mut buffer).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..len.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

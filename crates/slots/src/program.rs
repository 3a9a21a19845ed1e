//! Runs a program and listens to it, without a shell and with bounded memory.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use camino::Utf8Path;

use crate::error::BootError;

/// Most of a program's standard output that is taken, in bytes: U-Boot's largest environments.
const MAX_OUTPUT: u64 = 1 << 20;

/// Most of a program's standard error that is told on, in bytes.
const MAX_SAID: u64 = 2 << 10;

/// Standard output of a run that succeeded; `input`, a few lines, is its standard input.
pub(crate) fn run(
    program: &Utf8Path,
    arguments: &[impl AsRef<OsStr>],
    input: &str,
) -> Result<String, BootError> {
    let failed = |source| BootError::Run {
        program: program.to_owned(),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Whoever does not read it says by the exit status whether that is a failure.
    let mut stdin = child.stdin.take().expect("it is piped");
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let stderr = child.stderr.take().expect("it is piped");
    let said = thread::spawn(move || beginning(stderr, MAX_SAID));
    let stdout = child.stdout.take().expect("it is piped");
    let output = beginning(stdout, MAX_OUTPUT);
    let said = said.join().expect("it only reads");
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
        return Err(BootError::Failed {
            program: words.fold(program.to_string(), |line, word| line + " " + &word),
            status,
            said: String::from_utf8_lossy(&said.map_err(failed)?.0)
                .trim()
                .to_owned(),
        });
    }
    let answer = |why| BootError::Answer {
        program: program.to_owned(),
        why,
    };
    let (output, whole) = output.map_err(failed)?;
    if !whole {
        return Err(answer("it says too much"));
    }
    String::from_utf8(output).map_err(|_| answer("it is no text"))
}

/// The first bytes, and whether these are all. The rest is read too, so that nobody waits to write it.
fn beginning(mut from: impl Read, max: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    from.by_ref().take(max).read_to_end(&mut bytes)?;
    let rest = io::copy(&mut from, &mut io::sink())?;
    Ok((bytes, rest == 0))
}

/// The value of `name` in lines of `name=value`; the last one counts, and an empty one is none.
pub(crate) fn value<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = output.lines().rev();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_end()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String, BootError> {
        run("sh".into(), &["-c", script], "")
    }

    #[test]
    fn much_output_on_both_sides_neither_blocks_nor_fills_memory() {
        let error = shell("yes | head -c 3000000; yes | head -c 3000000 >&2").unwrap_err();
        assert!(matches!(error, BootError::Answer { .. }), "{error}");
        let error = shell("yes | head -c 3000000 >&2; exit 3").unwrap_err();
        assert!(error.to_string().len() < 3000, "{error}");
    }

    #[test]
    fn a_failure_tells_the_command_its_status_and_what_it_said() {
        let error = shell("echo no such slot >&2; exit 3").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("`sh -c echo no such slot"), "{text}");
        assert!(text.ends_with("exit status: 3: no such slot"), "{text}");
        let error = run("/nowhere/program".into(), &["read"], "").unwrap_err();
        assert!(error.hint().unwrap().contains("install"), "{error}");
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        assert_eq!(value("a=1\nab=2\na=3\r\n", "a"), Some("3"));
        assert_eq!(value("a=\nb", "a"), None);
        assert_eq!(value("a=\nb", "b"), None);
    }
}

//! Python, in which the original is written and most tools of operators are.

use system_image_demo::measure::Step;

/// Debian's own: one that a version manager puts in front of it takes ten times as long to start.
const PYTHON: &str = "/usr/bin/python3";

/// Whether it is there.
pub(crate) fn is_there() -> bool {
    let version = Step::new(PYTHON).and_then(|step| step.args(["--version"]).finish(true));
    version.is_ok_and(|(output, _)| output.status.success())
}

/// A program of this text with these arguments.
pub(crate) fn step(program: &str, arguments: &[&str]) -> anyhow::Result<Step> {
    Ok(Step::new(PYTHON)?.args(["-c", program]).args(arguments))
}

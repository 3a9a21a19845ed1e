//! Firmware updates through the tool that device makers install (client spec, section 15.11).

use std::process::Command;

/// The tool.
const TOOL: &str = "afirmflasher";

/// What callers are told when there is no answer.
const NONE: &str = "ERR";

/// Whether the device's firmware can be updated.
pub(super) fn is_supported() -> bool {
    ask("-jd").is_some_and(|text| text == "OK")
}

/// What the tool knows of an update, as JSON.
pub(super) fn check() -> String {
    json("-jc")
}

/// Updates the firmware; what the tool says, as JSON.
pub(super) fn update() -> String {
    json("-jf")
}

fn json(option: &str) -> String {
    let answer = is_supported().then(|| ask(option)).flatten();
    let is_json = |text: &String| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    answer.filter(is_json).unwrap_or_else(|| NONE.to_owned())
}

fn ask(option: &str) -> Option<String> {
    let output = Command::new(TOOL).arg(option).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

//! What became of an update, for the running system to read: the original leaves its client to
//! guess (upgrader spec, section 11).

use std::io;

use camino::Utf8Path;
use serde::Serialize;

/// The content of the result file, one JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub outcome: Ending,
    /// The error and its causes, outermost first; empty if there was none.
    pub reason: Vec<String>,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the system was made anew; not known if the command file was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// The tarballs of the command file, in order.
    pub files: Vec<String>,
    /// The number in the name of the last version file, which is the image's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The slot that was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// What this run did, in order; what one before it did is not here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Taken>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// All of it is installed.
    Installed,
    /// It is in the other slot, which is tried at the next start.
    Trying,
    /// Nothing was changed.
    Refused,
    /// The system is mixed and must not be booted. Starting again continues.
    Interrupted,
    /// It was continued again and again, and is not any more.
    Failed,
    /// The new slot did not prove itself, and the old one runs again.
    FellBack,
}

/// A step that was taken.
#[derive(Clone, Debug, Serialize)]
pub struct Taken {
    /// What it was, for people.
    pub step: String,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that it wrote, as far as that is counted.
    pub bytes: u64,
}

impl Outcome {
    /// Of a run over these tarballs.
    pub fn new(outcome: Ending, files: Vec<String>) -> Self {
        let version = files.iter().rev().find_map(|name| version(name));
        Self {
            outcome,
            reason: Vec::new(),
            hint: None,
            full: None,
            files,
            version,
            slot: None,
            steps: Vec::new(),
        }
    }

    /// Writes it to `path`, complete or not at all.
    pub fn write(&self, path: &Utf8Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        system_image_durable::replace(path, &text, 0o644)
    }
}

/// `version-22.tar.xz` gives 22 (server spec, section 7).
fn version(name: &str) -> Option<u32> {
    name.strip_prefix("version-")?
        .strip_suffix(".tar.xz")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn the_result_is_one_json_object() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("result.json")).unwrap();
        let files = vec![
            "ubuntu-0a.tar.xz".to_owned(),
            "version-22.tar.xz".to_owned(),
        ];
        let mut outcome = Outcome::new(Ending::Refused, files);
        outcome.reason = vec!["no".into()];
        outcome.write(&path).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let want = serde_json::json!({
            "outcome": "refused",
            "reason": ["no"],
            "files": ["ubuntu-0a.tar.xz", "version-22.tar.xz"],
            "version": 22,
        });
        assert_eq!(read, want);
    }
}

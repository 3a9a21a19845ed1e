//! What became of an update that was handed over: told after the reboot (upgrader spec,
//! section 11).
//!
//! In: the record of the hand-over, what is installed now, what the upgrader said and whether the
//! device has started again. Out: how it ended. The installed version is the proof; what the
//! upgrader said is only the reason.

use std::time::SystemTime;
use std::{fmt, fs};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use system_image_durable as durable;
use system_image_formats::name::ChannelName;
use system_image_formats::version::ImageVersion;

use super::{Event, Installed, MAX_RECORD, Record, State};
use crate::handover::COMMAND_FILE;

/// A hand-over to the upgrader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applying {
    /// When, in Unix seconds.
    pub at: i64,
    /// What was installed.
    pub installed: Installed,
    /// The channel of the update.
    pub channel: ChannelName,
    /// Its version.
    pub version: ImageVersion,
    /// Whether it is applied by patches.
    #[serde(default)]
    pub patched: bool,
    /// The run of the kernel that it was handed over in.
    pub boot: String,
}

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is installed.
    Installed,
    /// It is not, and why.
    Failed(String),
}

/// An update of which it is known now how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The hand-over.
    pub applying: Applying,
    /// How it ended.
    pub ending: Ending,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Applying { version, .. } = &self.applying;
        match &self.ending {
            Ending::Installed => write!(f, "the update to {version} is installed"),
            Ending::Failed(why) => write!(f, "the update to {version} is not installed: {why}"),
        }
    }
}

/// What the upgrader wrote.
#[derive(Clone, Debug, Deserialize)]
struct Result {
    outcome: String,
    #[serde(default)]
    reason: Vec<String>,
    version: Option<ImageVersion>,
}

impl State {
    /// The hand-over whose end is not known yet.
    pub fn applying(&self) -> Option<Applying> {
        self.read("applying.json")
    }

    /// Notes that an update is about to be handed over.
    pub fn note_applying(&self, applying: &Applying) -> anyhow::Result<()> {
        self.write("applying.json", applying)?;
        self.record(&Record::new(
            applying.at,
            Event::Applying,
            &applying.channel,
            Some((applying.installed.build, applying.version)),
        ))
    }

    /// Forgets a hand-over that did not come about.
    pub fn forget_applying(&self) -> anyhow::Result<()> {
        self.forget("applying.json")
    }

    /// Whether an update by patches has failed with this installed.
    pub fn patches_failed(&self, installed: &Installed) -> bool {
        let failed: Option<Installed> = self.read("patches-failed.json");
        failed.as_ref() == Some(installed)
    }

    /// Finds out how a hand-over ended, and notes it. None when there was none, or it cannot be
    /// known yet.
    pub fn settle(
        &self,
        installed: &Installed,
        drop_box: &Utf8Path,
        result: &Utf8Path,
        now: i64,
    ) -> anyhow::Result<Option<Settled>> {
        let Some(applying) = self.applying() else {
            return Ok(None);
        };
        let facts = Facts {
            installed,
            result: read_result(result, applying.at),
            restarted: boot().is_some_and(|boot| boot != applying.boot),
            waiting: drop_box.join(COMMAND_FILE).exists(),
        };
        let Some(ending) = facts.judge(&applying) else {
            return Ok(None);
        };
        let moved = Some((applying.installed.build, applying.version));
        let mut record = Record::new(now, Event::Installed, &applying.channel, moved);
        if let Ending::Failed(why) = &ending {
            record.event = Event::Failed;
            record.reason = Some(why.clone());
            if applying.patched {
                // The next attempt is made with what needs nothing of the installed files.
                self.write("patches-failed.json", &applying.installed)?;
            }
        }
        self.record(&record)?;
        self.forget_applying()?;
        Ok(Some(Settled { applying, ending }))
    }
}

/// The run of the kernel.
pub fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// What the upgrader said since `since`, in Unix seconds.
fn read_result(path: &Utf8Path, since: i64) -> Option<Result> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    if i64::try_from(modified.as_secs()).ok()? < since {
        return None;
    }
    let bytes = durable::read(path, MAX_RECORD).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// Where the upgrader of a device with this drop box says how it ended.
pub fn result_path(drop_box: &Utf8Path) -> Utf8PathBuf {
    drop_box
        .parent()
        .unwrap_or(drop_box)
        .join("system-image-result.json")
}

struct Facts<'a> {
    installed: &'a Installed,
    result: Option<Result>,
    restarted: bool,
    waiting: bool,
}

impl Facts<'_> {
    fn judge(&self, applying: &Applying) -> Option<Ending> {
        let arrived = self.installed.build == applying.version
            && (self.installed.channel == applying.channel
                || self.installed.channel != applying.installed.channel);
        // In another slot that is being tried: it runs, or whoever runs instead says why.
        let is_trying = |result: &&Result| result.outcome == "trying";
        if let Some(result) = self.result.as_ref().filter(|result| !is_trying(result)) {
            let whole = result.outcome == "installed";
            if whole && (arrived || result.version == Some(applying.version)) {
                return Some(Ending::Installed);
            }
            if !whole {
                let reason = match &result.reason[..] {
                    [] => format!("the upgrader says `{}`", result.outcome),
                    causes => causes.join(": "),
                };
                return Some(Ending::Failed(reason));
            }
        }
        // An update to the version that is installed already proves nothing by its number.
        let moved = *self.installed != applying.installed;
        if arrived && moved {
            return Some(Ending::Installed);
        }
        if !self.restarted
            || self
                .result
                .as_ref()
                .is_some_and(|result| is_trying(&result))
        {
            return None;
        }
        Some(match self.waiting {
            _ if arrived => Ending::Installed,
            true => Ending::Failed(
                "the device has started again, and its recovery has not applied the update".into(),
            ),
            false => Ending::Failed(
                "the device has started again with the old image, and its recovery has not said why"
                    .into(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(channel: &str, build: u32) -> Installed {
        Installed {
            channel: channel.parse().unwrap(),
            build: ImageVersion::new(build),
        }
    }

    #[test]
    fn after_an_update_by_patches_that_failed_the_next_one_comes_without_them() {
        let place = tempfile::tempdir().unwrap();
        let place = Utf8Path::from_path(place.path()).unwrap();
        let state = State {
            directory: place.join("state"),
        };
        let result = place.join("result.json");
        for (patched, outcome, want) in [
            (true, "installed", false),
            (false, "refused", false),
            (true, "refused", true),
        ] {
            let applying = Applying {
                at: 1,
                installed: installed("a", 5),
                channel: "a".parse().unwrap(),
                version: ImageVersion::new(6),
                patched,
                boot: boot().unwrap(),
            };
            state.note_applying(&applying).unwrap();
            let text = format!(r#"{{"outcome": "{outcome}", "version": 6}}"#);
            fs::write(&result, text).unwrap();
            let settled = state.settle(&applying.installed, place, &result, 9);
            settled.unwrap().unwrap();
            assert_eq!(state.patches_failed(&installed("a", 5)), want, "{outcome}");
        }
        // Another version's files are those that its image has.
        assert!(!state.patches_failed(&installed("a", 6)));
    }

    #[test]
    fn how_an_update_ended_is_told_from_what_is_installed_and_what_the_upgrader_said() {
        let applying = Applying {
            at: 1,
            installed: installed("a", 5),
            channel: "a".parse().unwrap(),
            version: ImageVersion::new(6),
            patched: false,
            boot: "x".into(),
        };
        let said = |outcome: &str, reason: &[&str]| {
            Some(Result {
                outcome: outcome.to_owned(),
                reason: reason.iter().map(|text| (*text).to_owned()).collect(),
                version: Some(ImageVersion::new(6)),
            })
        };
        let judge = |build, result, restarted, waiting| {
            let facts = Facts {
                installed: &installed("a", build),
                result,
                restarted,
                waiting,
            };
            match facts.judge(&applying) {
                None => "?".to_owned(),
                Some(Ending::Installed) => "installed".to_owned(),
                Some(Ending::Failed(why)) => why,
            }
        };
        assert_eq!(judge(6, None, true, false), "installed");
        assert_eq!(
            judge(6, None, false, false),
            "installed",
            "no reboot needed"
        );
        assert_eq!(judge(5, None, false, true), "?", "about to reboot");
        assert_eq!(judge(5, said("installed", &[]), true, false), "installed");
        assert_eq!(
            judge(5, said("refused", &["no key", "x"]), true, false),
            "no key: x"
        );
        assert!(judge(5, said("interrupted", &[]), true, true).contains("interrupted"));
        assert_eq!(
            judge(5, said("trying", &[]), false, false),
            "?",
            "about to reboot"
        );
        assert_eq!(
            judge(5, said("trying", &[]), true, false),
            "?",
            "tried in vain"
        );
        assert_eq!(judge(6, said("trying", &[]), true, false), "installed");
        assert_eq!(judge(5, said("fell-back", &["x"]), true, false), "x");
        assert!(judge(5, None, true, true).contains("has not applied"));
        assert!(judge(5, None, true, false).contains("old image"));
    }
}

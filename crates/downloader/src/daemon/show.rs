//! What our own interface shows of a download: what it does now, how fast, and what it waits for.

use std::collections::HashMap;

use zbus::Variant;

use super::core::Core;
use super::run::Run;
use crate::job::admission::Held;
use crate::job::download::Download;
use crate::job::machine::{Activity, State};

/// A word for what a download does.
pub(super) fn activity(download: &Download) -> &'static str {
    match (download.machine.activity(), download.machine.state()) {
        (Activity::Waiting, _) => "waiting",
        (Activity::Running, _) => "running",
        (Activity::Finishing, _) => "finishing",
        (Activity::Resting, State::Pause) => "paused",
        (Activity::Resting, State::Uncollected) => "complete",
        (Activity::Resting, _) => "idle",
    }
}

impl Core {
    /// A download's properties.
    pub fn show(&self, download: &Download) -> HashMap<&'static str, Variant<'static>> {
        let (received, total) = (download.received(), download.total());
        let speed = self.runs.get(&download.number).map_or(0.0, Run::speed);
        let left = total.saturating_sub(received) as f64;
        let eta = if speed > 0.0 && download.is_measured() {
            left / speed
        } else {
            -1.0
        };
        let urls: Vec<String> = download.files.iter().map(|file| file.url.clone()).collect();
        let place = match &download.files[..] {
            [file] => file.destination.to_string(),
            files => files
                .first()
                .and_then(|file| file.destination.parent())
                .map_or_else(String::new, ToString::to_string),
        };
        HashMap::from([
            ("Activity", activity(download).into()),
            ("Eta", eta.into()),
            ("Owner", download.owner.clone().into()),
            ("Path", place.into()),
            ("Received", received.into()),
            ("Speed", whole(speed).into()),
            ("Total", total.into()),
            ("Urls", urls.into()),
            ("WaitsFor", download.held.map_or("", Held::word).into()),
        ])
    }
}

/// Whole bytes per second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a speed is positive, and too large a one is the largest"
)]
fn whole(speed: f64) -> u64 {
    speed as u64
}

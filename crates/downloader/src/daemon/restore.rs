//! Takes over the downloads of an earlier process (specification, section 17).

use std::fs;

use super::core::{Core, log_record};
use crate::job::download::Download;
use crate::job::metadata::key;
use crate::job::names;

impl Core {
    /// Puts back all that is not over: what ran goes on, what rested rests, what was complete waits to
    /// be collected.
    pub(super) fn restore(&mut self) {
        let live = self.records.live().unwrap_or_else(|error| {
            log_record(&error);
            Vec::new()
        });
        for download in live {
            self.revive(download);
        }
        let inherited = self.records.inherited(self.next_number);
        for download in inherited.unwrap_or_default() {
            self.next_number = download.number + 1;
            if let Err(error) = self.records.save(&download) {
                log_record(&error);
            }
            self.insert(download);
        }
        self.take_turns();
    }

    fn revive(&mut self, mut download: Download) {
        let more = download.has_command() || download.metadata.truth(key::EXTRACT);
        for file in &mut download.files {
            // It may have come to its place in the last moment. What was to be done with it then has
            // not been done to its end.
            if !file.done && Self::is_placed(file) {
                let part = names::partial(&file.stage);
                file.done = !more || fs::rename(&file.destination, part).is_err();
            }
            if file.done {
                file.received = file.total.unwrap_or_default();
            } else {
                let part = names::partial(&file.stage).metadata();
                file.received = part.map_or(0, |part| part.len());
            }
        }
        self.insert(download);
    }
}

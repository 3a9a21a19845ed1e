//! Who still touches files. A transfer that was stopped may be writing its last bytes; what deletes them
//! has to wait for that.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::job::machine::Act;
use crate::transfer::{News, Which};

/// Counts, by download.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<u64, Held>);

#[derive(Debug, Default)]
struct Held {
    guards: usize,
    /// What is done when there are none left.
    parked: Vec<Act>,
}

/// Tells when it is dropped.
#[derive(Debug)]
struct Guard {
    which: Which,
    news: UnboundedSender<(Which, News)>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends.
        drop(self.news.send((self.which, News::Released)));
    }
}

impl Holds {
    /// One more touches a file, until all copies of what is returned are dropped.
    pub(super) fn guard(
        &mut self,
        which: Which,
        news: &UnboundedSender<(Which, News)>,
    ) -> Arc<dyn std::any::Any + Send + Sync> {
        self.0.entry(which.number).or_default().guards += 1;
        Arc::new(Guard {
            which,
            news: news.clone(),
        })
    }

    /// Whether anybody touches a download's files.
    pub(super) fn any(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// Whether nobody touches anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps acts for later.
    pub(super) fn park(&mut self, number: u64, acts: Vec<Act>) {
        self.0.entry(number).or_default().parked = acts;
    }

    /// What was to begin later does not begin any more.
    pub(super) fn stop(&mut self, number: u64) {
        if let Some(held) = self.0.get_mut(&number)
            && held.parked.first() == Some(&Act::Run)
        {
            held.parked.clear();
        }
    }

    /// One fewer; what is to be done if that was the last.
    pub(super) fn release(&mut self, number: u64) -> Option<Vec<Act>> {
        let held = self.0.get_mut(&number)?;
        held.guards = held.guards.saturating_sub(1);
        if held.guards > 0 {
            return None;
        }
        self.0.remove(&number).map(|held| held.parked)
    }
}

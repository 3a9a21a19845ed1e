//! Fetches several files as one: all of them, or an error.

use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::FetchError;
use crate::fetcher::{Fetcher, OnProgress};
use crate::request::{Fetched, Progress, Request};

/// Transfers at a time, as the original.
const AT_ONCE: usize = 4;

impl Fetcher {
    /// Fetches all of `requests`, at most four at a time; returns what came of each, in order.
    ///
    /// Progress is that of the group; its total is known once that of every file is. Two requests
    /// for one place are allowed if they are equal, and then fetched once (client spec, 13.1). On
    /// the first error the others are stopped; what they have received is kept for the next time.
    pub async fn fetch_all(
        &self,
        requests: &[Request],
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<Fetched>, FetchError> {
        let unique = unique(requests)?;
        let files = unique.iter().map(|request| Progress {
            received: 0,
            total: request.size.known(),
        });
        let group = Mutex::new(Group {
            files: files.collect(),
            on_progress,
        });
        let transfers = unique.iter().enumerate().map(|(place, request)| {
            let group = &group;
            async move {
                let mut report = |progress| {
                    group
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .report(place, progress);
                };
                self.fetch(request, &mut report).await
            }
        });
        let transfers: Vec<_> = transfers.collect();
        let fetched: Vec<Fetched> = stream::iter(transfers)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let result = |request: &Request| {
            let found = fetched
                .iter()
                .find(|fetched| fetched.path == request.destination);
            found.expect("each destination has been fetched").clone()
        };
        Ok(requests.iter().map(result).collect())
    }
}

/// The requests without repetitions.
fn unique(requests: &[Request]) -> Result<Vec<&Request>, FetchError> {
    let mut unique: Vec<&Request> = Vec::new();
    for request in requests {
        match unique
            .iter()
            .find(|known| known.destination == request.destination)
        {
            None => unique.push(request),
            Some(known) if known.is_same(request) => {}
            Some(_) => {
                let destination = request.destination.clone();
                return Err(FetchError::Conflict { destination });
            }
        }
    }
    Ok(unique)
}

struct Group<'a> {
    files: Vec<Progress>,
    on_progress: OnProgress<'a>,
}

impl Group<'_> {
    fn report(&mut self, place: usize, progress: Progress) {
        self.files[place] = progress;
        let received = self.files.iter().map(|file| file.received).sum();
        let total = self.files.iter().map(|file| file.total).sum();
        (self.on_progress)(Progress { received, total });
    }
}

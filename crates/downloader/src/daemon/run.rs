//! Transfers: started, stopped, counted, and what is done when one has news.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use system_image_durable as durable;
use system_image_fetch::{Received, Throttle, discard};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::core::Core;
use crate::job::download::{Download, File, Identity, Shape};
use crate::job::failure::{Cause, Failure};
use crate::job::machine::{Activity, Told};
use crate::job::metadata::key;
use crate::job::names;
use crate::log;
use crate::transfer::bring;
use crate::transfer::finish::{After, finish, is_there};
use crate::transfer::{Counter, News, Which};

/// Files of a group at a time; the original's library allowed as many connections to a host.
const AT_ONCE: usize = 6;

/// How often progress is told.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// For so long a group's progress is kept back while the sizes of some files are unknown, because a
/// total that grows makes percentages fall.
const MEASURING: Duration = Duration::from_secs(3);

/// A download while it runs.
#[derive(Debug)]
pub(super) struct Run {
    id: u64,
    limit: Arc<Throttle>,
    tasks: Vec<Task>,
    begun: Instant,
    /// The last progress that was told.
    told: Option<(u64, u64)>,
    speed: Speed,
    /// Files in their places, in the order in which they arrived there.
    finished: Vec<String>,
}

#[derive(Debug)]
struct Task {
    place: usize,
    handle: JoinHandle<()>,
    counter: Arc<Counter>,
    /// What it does cannot be stopped half-way.
    placing: bool,
}

/// Bytes per second, of the last few seconds.
#[derive(Debug)]
struct Speed {
    last: (Instant, u64),
    rate: f64,
}

impl Speed {
    const fn new(now: Instant, received: u64) -> Self {
        Self {
            last: (now, received),
            rate: 0.0,
        }
    }

    fn update(&mut self, now: Instant, received: u64) {
        let (then, before) = self.last;
        let seconds = now.duration_since(then).as_secs_f64();
        if seconds < 0.5 {
            return;
        }
        let rate = received.saturating_sub(before) as f64 / seconds;
        // The first measurement stands for itself.
        let weight = if self.rate == 0.0 {
            1.0
        } else {
            (seconds / 3.0).min(1.0)
        };
        self.rate += (rate - self.rate) * weight;
        self.last = (now, received);
    }
}

impl Run {
    /// Bytes per second.
    pub(super) fn speed(&self) -> f64 {
        self.speed.rate
    }

    /// Another limit.
    pub(super) fn set_limit(&self, bytes_per_second: u64) {
        self.limit.set(bytes_per_second);
    }
}

impl Core {
    /// Begins or continues to transfer.
    pub(super) fn run(&mut self, number: u64) {
        let Some(download) = self.downloads.get(&number) else {
            return;
        };
        self.next_run += 1;
        let now = Instant::now();
        let finished = download.files.iter().filter(|file| file.done);
        let run = Run {
            id: self.next_run,
            limit: Arc::new(Throttle::new(download.throttle)),
            tasks: Vec::new(),
            begun: now,
            told: None,
            speed: Speed::new(now, download.received()),
            finished: finished.map(|file| file.destination.to_string()).collect(),
        };
        self.runs.insert(number, run);
        self.start_files(number);
    }

    /// Starts as many files as may be under way.
    fn start_files(&mut self, number: u64) {
        let (Some(download), Some(run)) = (self.downloads.get(&number), self.runs.get_mut(&number))
        else {
            return;
        };
        for (place, file) in download.files.iter().enumerate() {
            if run.tasks.len() >= AT_ONCE {
                break;
            }
            if file.done || run.tasks.iter().any(|task| task.place == place) {
                continue;
            }
            let which = Which {
                number,
                place,
                run: run.id,
            };
            let counter = Arc::new(Counter::new(file.received, file.total));
            let news = self.news.clone();
            let guard = self.holds.guard(which, &self.news);
            let order = self.engine.order(download, file, &run.limit, guard);
            let seen = Arc::clone(&counter);
            let handle = self.engine.start(async move {
                let brought = match order {
                    Ok(order) => bring::bring(order, &seen).await,
                    Err(failure) => Err(bring::Missed::for_good(failure)),
                };
                let what = match brought {
                    Ok(received) => News::Received(Box::new(received)),
                    Err(missed) => News::Failed {
                        failure: missed.failure,
                        unreachable: missed.unreachable,
                    },
                };
                // Nobody listens any more when the process ends.
                drop(news.send((which, what)));
            });
            run.tasks.push(Task {
                place,
                handle,
                counter,
                placing: false,
            });
        }
        if download.files.iter().all(|file| file.done) {
            self.complete(number);
        }
    }

    /// Stops its transfers and keeps what they have brought.
    pub(super) fn stop(&mut self, number: u64) {
        self.count(number);
        self.holds.stop(number);
        let Some(run) = self.runs.remove(&number) else {
            return;
        };
        for task in run.tasks {
            // What is being renamed will be; if nobody wants it then, it is deleted.
            if !task.placing {
                task.handle.abort();
            }
        }
    }

    /// Deletes what is not complete; of a group, everything.
    pub(super) fn discard(&mut self, number: u64) {
        let Some(download) = self.downloads.get(&number) else {
            return;
        };
        for file in &download.files {
            let deleted = if !file.done {
                discard(&file.stage, names::SUFFIX)
            } else if download.shape == Shape::Group {
                durable::remove(&file.destination)
            } else {
                Ok(())
            };
            if let Err(error) = deleted {
                log::say(format_args!(
                    "`{}` cannot be deleted: {error}",
                    file.destination
                ));
            }
        }
    }

    /// Takes the news of a transfer.
    pub fn hear(&mut self, which: Which, news: News) {
        if matches!(news, News::Released) {
            self.released(which.number);
            return;
        }
        let current = self.runs.get(&which.number).map(|run| run.id);
        if current != Some(which.run) {
            self.clean_up(which, news);
            return;
        }
        match news {
            News::Received(received) => self.received(which, *received),
            News::Done(path) => self.placed(which, path),
            News::Failed {
                failure,
                unreachable,
            } => {
                if unreachable && self.waits_for_network(which.number) {
                    return;
                }
                self.failed(which, failure);
            }
            News::Released => {}
        }
    }

    /// News of a run that was stopped. A file that came to its place all the same stays if its
    /// download still waits for it, and goes if that was given up.
    fn clean_up(&mut self, which: Which, news: News) {
        let News::Done(path) = news else {
            return;
        };
        let file = self.file_mut(which);
        match file {
            Some(file) if !file.done => {
                file.done = true;
                file.destination = path;
                self.save_file(which.number, which.place);
            }
            Some(_) => {}
            None => drop(durable::remove(&path)),
        }
    }

    fn file_mut(&mut self, which: Which) -> Option<&mut File> {
        let download = self.downloads.get_mut(&which.number)?;
        download.files.get_mut(which.place)
    }

    /// All bytes are here: puts the file in its place.
    fn received(&mut self, which: Which, received: Received) {
        let Some(download) = self.downloads.get(&which.number) else {
            return;
        };
        let Some(file) = download.files.get(which.place) else {
            return;
        };
        let (exact, size) = (file.exact, received.size);
        let after = self.after(download, &received);
        let destination = match &received.name {
            Some(name) if !exact => self.renamed(file, name),
            _ => file.destination.clone(),
        };
        let checked = !file.hash.is_empty() || after != After::Nothing;
        let identity = received.part().metadata().ok().map(|metadata| Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size,
        });
        if let Some(file) = self.file_mut(which) {
            file.received = size;
            file.total = Some(size);
            file.destination.clone_from(&destination);
            file.identity = identity;
        }
        // After a crash this says which file it is, whether it was renamed by then or not.
        self.save_file(which.number, which.place);
        self.tell_progress(which.number);
        let download = &self.downloads[&which.number];
        if checked {
            self.outbox
                .tell(download, "processing", &destination.as_str());
        }
        if download.shape != Shape::Group {
            self.tell(which.number, Told::Received);
        }
        let Some(run) = self.runs.get_mut(&which.number) else {
            return;
        };
        let Some(task) = run.tasks.iter_mut().find(|task| task.place == which.place) else {
            return;
        };
        task.placing = !matches!(after, After::Command(_));
        let news = self.news.clone();
        // Whoever waits for the files hears first where this one is.
        let guard = self.holds.guard(which, &self.news);
        task.handle = tokio::spawn(async move {
            let what = match finish(received, destination, exact, after).await {
                Ok(path) => News::Done(path),
                Err(failure) => News::Failed {
                    failure,
                    unreachable: false,
                },
            };
            drop(news.send((which, what)));
            drop(guard);
        });
    }

    /// What is done with a file after the transfer.
    fn after(&self, download: &Download, received: &Received) -> After {
        if download.has_command() {
            let allowed = download.confined.is_none() && !self.host.privileged;
            let words = download.metadata.words(key::POST_DOWNLOAD_COMMAND);
            return match words {
                Some(words) if allowed => After::Command(words),
                _ if allowed => After::Command(Vec::new()),
                _ => After::Forbidden,
            };
        }
        let is_archive = received.content_type.as_deref() == Some("application/zip");
        if download.metadata.truth(key::EXTRACT) && is_archive {
            After::Unpack
        } else {
            After::Nothing
        }
    }

    /// The place for a file whose server suggests a name.
    fn renamed(&self, file: &File, name: &str) -> Utf8PathBuf {
        let Some(name) = names::suggested(name) else {
            return file.destination.clone();
        };
        let wanted = file.destination.with_file_name(name);
        if wanted == file.destination {
            return wanted;
        }
        self.free(&wanted)
    }

    /// A file is in its place.
    fn placed(&mut self, which: Which, path: Utf8PathBuf) {
        if let Some(run) = self.runs.get_mut(&which.number) {
            run.tasks.retain(|task| task.place != which.place);
            run.finished.push(path.to_string());
        }
        if let Some(file) = self.file_mut(which) {
            file.done = true;
            file.destination = path;
        }
        self.save_file(which.number, which.place);
        let Some(download) = self.downloads.get(&which.number) else {
            return;
        };
        if download.files.iter().all(|file| file.done) {
            self.complete(which.number);
        } else {
            self.start_files(which.number);
        }
    }

    /// All files are in their places.
    pub(super) fn complete(&mut self, number: u64) {
        self.tell_progress(number);
        let Some(download) = self.downloads.get_mut(&number) else {
            return;
        };
        let finished = self.runs.remove(&number).map(|run| run.finished);
        download.machine.told(Told::Done);
        self.save_state(number);
        let download = &self.downloads[&number];
        if download.shape == Shape::Group {
            let finished = finished.unwrap_or_default();
            self.outbox.tell(download, "finished", &finished);
            self.leave(number);
        } else if let [file] = &download.files[..] {
            self.outbox
                .tell(download, "finished", &file.destination.as_str());
        }
        self.take_turns();
    }

    fn failed(&mut self, which: Which, failure: Failure) {
        self.count(which.number);
        if let Cause::Hash { .. } = failure.cause {
            self.tell_progress(which.number);
            if let Some(download) = self.downloads.get(&which.number)
                && let Some(file) = download.files.get(which.place)
            {
                let path = file.destination.as_str();
                self.outbox.tell(download, "processing", &path);
            }
        }
        self.fail(which.number, which.place, failure);
    }

    /// Takes over how far its files have come.
    fn count(&mut self, number: u64) {
        let (Some(run), Some(download)) =
            (self.runs.get_mut(&number), self.downloads.get_mut(&number))
        else {
            return;
        };
        for task in &run.tasks {
            if let Some(file) = download.files.get_mut(task.place)
                && !task.placing
            {
                let (received, total) = task.counter.get();
                file.received = received;
                file.total = total.or(file.total);
            }
        }
        run.speed.update(Instant::now(), download.received());
    }

    /// Tells how far everything has come.
    pub fn tick(&mut self) {
        let running: Vec<u64> = self.runs.keys().copied().collect();
        for number in running {
            self.count(number);
            self.tell_progress(number);
        }
    }

    /// Whether there is progress to be told from time to time.
    pub fn is_moving(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Tells how far a download has come, unless it has been told. What is received never falls within a
    /// run, also when a file had to be started over.
    fn tell_progress(&mut self, number: u64) {
        let (Some(run), Some(download)) = (self.runs.get_mut(&number), self.downloads.get(&number))
        else {
            return;
        };
        let received = download.received();
        if !download.is_measured()
            && download.shape == Shape::Group
            && run.begun.elapsed() < MEASURING
        {
            return;
        }
        let total = if download.is_measured() {
            download.total()
        } else {
            download.total().max(received)
        };
        let least = run.told.map_or(0, |(received, _)| received);
        let finishing = download.machine.activity() == Activity::Finishing;
        if received < least || received == 0 && !finishing && run.told.is_none() && total == 0 {
            return;
        }
        if run.told != Some((received, total)) {
            run.told = Some((received, total));
            self.outbox.tell(download, "progress", &(received, total));
        }
    }

    /// Whether a file that was complete when the process ended is in its place.
    pub(super) fn is_placed(file: &File) -> bool {
        let is_it = |identity: &Identity| {
            let metadata = file.destination.symlink_metadata();
            metadata.is_ok_and(|found| {
                (found.dev(), found.ino(), found.len())
                    == (identity.device, identity.inode, identity.size)
            })
        };
        file.identity.as_ref().is_some_and(is_it)
    }

    /// Opens the temporary file, so that `start` can say at once whether that works.
    pub(super) fn prepare(file: &File) -> std::io::Result<()> {
        let part = names::partial(&file.stage);
        if is_there(&part) {
            return Ok(());
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).open(part).map(drop)
    }
}

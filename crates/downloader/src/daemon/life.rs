//! What wakes the core, and when it has lived long enough (specification, section 14).

use std::time::Duration;

use anyhow::Context as _;
use system_image_bus::{Changes, Kernel, Network};
use system_image_lean::give_back;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{Instant, sleep_until, timeout_at};
use zbus::{Connection, Message};

use super::core::Core;
use super::run::TICK;
use crate::job::caller::Caller;
use crate::transfer::{News, Which};

/// Without any download it leaves after so long.
const EMPTY: Duration = Duration::from_secs(30);

/// When all rest, it leaves after so long without a call: what rests comes back with the next one.
const RESTING: Duration = Duration::from_secs(600);

/// Nothing more comes of what was going on.
const QUIET: Duration = Duration::from_secs(2);

/// The network is looked at so often while something wants it: where there is no service for it nobody
/// tells of changes.
const LOOK: Duration = Duration::from_secs(30);

/// How long the last bytes may take to be written.
const PARTING: Duration = Duration::from_secs(5);

/// As good as never.
const NEVER: Duration = Duration::from_secs(86_400);

/// The core and what it hears.
pub(super) struct Life {
    core: Core,
    calls: Receiver<(Message, Caller)>,
    news: UnboundedReceiver<(Which, News)>,
    system: Option<Connection>,
    kernel: Kernel,
    changes: Option<Changes>,
    ended: [Signal; 2],
    last_call: Instant,
    /// The last time at which there was a download.
    last_download: Instant,
}

impl Life {
    pub(super) async fn new(
        core: Core,
        calls: Receiver<(Message, Caller)>,
        news: UnboundedReceiver<(Which, News)>,
        system: Option<Connection>,
        kernel: Kernel,
    ) -> anyhow::Result<Self> {
        let changes = match &system {
            Some(system) => Changes::watch(system).await.ok(),
            None => None,
        };
        let listen = |kind| signal(kind).context("cannot listen to signals");
        let now = Instant::now();
        Ok(Self {
            core,
            calls,
            news,
            system,
            kernel,
            changes,
            ended: [
                listen(SignalKind::terminate())?,
                listen(SignalKind::interrupt())?,
            ],
            last_call: now,
            last_download: now,
        })
    }

    /// Lives until somebody ends it, the bus does, or, if it may, there has been nothing to do for a while.
    pub(super) async fn until_over(&mut self, leaves: bool) {
        let mut tick = Instant::now();
        let mut look = Instant::now() + LOOK;
        let mut quiet = Some(Instant::now() + QUIET);
        while !self.core.is_over() {
            if !self.core.is_empty() {
                self.last_download = Instant::now();
            }
            let never = Instant::now() + NEVER;
            let next_tick = if self.core.is_moving() { tick } else { never };
            let next_look = if self.core.is_busy() { look } else { never };
            let end = if leaves {
                self.end().unwrap_or(never)
            } else {
                never
            };
            let next_quiet = quiet.filter(|_| !self.core.is_busy()).unwrap_or(never);
            let [terminated, interrupted] = &mut self.ended;
            let mut worked = true;
            tokio::select! {
                called = self.calls.recv() => {
                    let Some((message, by)) = called else {
                        return;
                    };
                    self.last_call = Instant::now();
                    self.core.answer(&message, &by);
                }
                Some((which, what)) = self.news.recv() => self.core.hear(which, what),
                () = sleep_until(next_tick) => {
                    self.core.tick();
                    tick = Instant::now() + TICK;
                }
                () = changed(&mut self.changes) => self.look().await,
                () = sleep_until(next_look) => {
                    self.look().await;
                    look = Instant::now() + LOOK;
                }
                () = sleep_until(next_quiet) => {
                    give_back();
                    worked = false;
                }
                () = sleep_until(end) => return,
                _ = terminated.recv() => return,
                _ = interrupted.recv() => return,
            }
            quiet = worked.then(|| Instant::now() + QUIET);
        }
    }

    /// When it ends if nothing happens; none while something is to be done.
    fn end(&self) -> Option<Instant> {
        if self.core.is_busy() {
            None
        } else if self.core.is_empty() {
            Some(self.last_download + EMPTY)
        } else {
            Some(self.last_call + RESTING)
        }
    }

    async fn look(&mut self) {
        let network = Network::now(self.system.as_ref(), &self.kernel).await;
        self.core.set_network(network);
    }

    /// Answers what was called, and waits until all that came is written.
    pub(super) async fn part(&mut self) {
        while let Ok((message, by)) = self.calls.try_recv() {
            self.core.answer(&message, &by);
        }
        let latest = Instant::now() + PARTING;
        while self.core.wind_up() {
            let Ok(Some((which, what))) = timeout_at(latest, self.news.recv()).await else {
                return;
            };
            self.core.hear(which, what);
        }
    }
}

/// Waits for another network; for ever where nobody tells.
async fn changed(changes: &mut Option<Changes>) {
    if let Some(watched) = changes {
        if watched.changed().await.is_ok() {
            return;
        }
        *changes = None;
    }
    std::future::pending::<()>().await;
}

//! Brings payloads into the drop box, by one of two ways: the engine in this process, or the
//! download manager on the bus (client spec, section 13).
//!
//! In: requests with size and digest, and what the user wants meanwhile: go on, pause, cancel. Out:
//! the files at their places.

use std::pin::pin;

use futures_util::future::{Either, select};
use system_image_fetch::{Fetcher, Progress, Request};
use tokio::sync::watch;

use crate::server::Server;

/// What is wanted of a transfer while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Go on.
    #[default]
    Run,
    /// Stop, and go on later.
    Pause,
    /// Give up.
    Cancel,
}

/// What a transfer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Data begins to flow; so many bytes in all.
    Started(u64),
    /// So many bytes are there.
    Progress(Progress),
    /// It has stopped until it is wanted again.
    Paused,
    /// It goes on.
    Resumed,
}

/// Told of every event, from whatever thread runs the transfer.
pub type OnEvent<'a> = &'a mut (dyn FnMut(Event) + Send);

/// The download was canceled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Canceled")]
pub struct Canceled;

/// Listens to what is wanted.
#[derive(Clone, Debug)]
pub struct Control(watch::Receiver<Wanted>);

/// Says what is wanted.
#[derive(Clone, Debug)]
pub struct Handle(watch::Sender<Wanted>);

impl Control {
    /// A control and the handle that steers it.
    pub fn new() -> (Handle, Self) {
        let (sender, receiver) = watch::channel(Wanted::Run);
        (Handle(sender), Self(receiver))
    }

    /// A control that always lets go on.
    pub fn none() -> Self {
        Self::new().1
    }

    /// An error if the transfer is to be given up.
    pub fn check(&self) -> Result<(), Canceled> {
        match *self.0.borrow() {
            Wanted::Cancel => Err(Canceled),
            Wanted::Run | Wanted::Pause => Ok(()),
        }
    }

    /// Waits until something else than going on is wanted.
    async fn interrupted(&mut self) -> Wanted {
        match self.0.wait_for(|wanted| *wanted != Wanted::Run).await {
            Ok(wanted) => *wanted,
            // Nobody is left who could want it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the transfer shall go on, or be given up.
    async fn go_on(&mut self) -> Result<(), Canceled> {
        match self.0.wait_for(|wanted| *wanted != Wanted::Pause).await {
            Ok(wanted) if *wanted == Wanted::Run => Ok(()),
            Ok(_) | Err(_) => Err(Canceled),
        }
    }
}

impl Handle {
    /// Wants something else from now on.
    pub fn want(&self, wanted: Wanted) {
        self.0.send_replace(wanted);
    }
}

/// Runs `work` unless the control says to give up.
pub async fn unless_canceled<T>(
    mut control: Control,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let canceled = pin!(async {
        loop {
            if control.interrupted().await == Wanted::Cancel || control.go_on().await.is_err() {
                return;
            }
        }
    });
    match select(canceled, pin!(work)).await {
        Either::Left(((), _)) => Err(Canceled.into()),
        Either::Right((result, _)) => result,
    }
}

/// What brings payloads.
#[derive(Debug)]
pub enum Way {
    /// The engine in this process.
    BuiltIn,
}

impl Way {
    /// Brings the files.
    pub async fn bring(
        &self,
        server: &Server,
        requests: &[Request],
        control: Control,
        on_event: OnEvent<'_>,
    ) -> anyhow::Result<()> {
        match self {
            Self::BuiltIn => built_in(&server.fetcher, requests, control, on_event).await,
        }
    }
}

/// Brings the files with the engine in this process. A pause keeps what has been received.
async fn built_in(
    fetcher: &Fetcher,
    requests: &[Request],
    mut control: Control,
    on_event: OnEvent<'_>,
) -> anyhow::Result<()> {
    loop {
        control.check()?;
        {
            let step = &mut |progress| on_event(Event::Progress(progress));
            let fetch = pin!(fetcher.fetch_all(requests, step));
            // Dropping a transfer stops it; what it has received is kept.
            if let Either::Right((fetched, _)) = select(pin!(control.interrupted()), fetch).await {
                fetched?;
                return Ok(());
            }
        }
        control.check()?;
        on_event(Event::Paused);
        control.go_on().await?;
        on_event(Event::Resumed);
    }
}

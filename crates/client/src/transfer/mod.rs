//! Brings payloads into the drop box, by one of two ways: the engine in this process, or the
//! download manager on the bus (client spec, section 13).
//!
//! In: requests with size and digest, and what the user wants meanwhile: go on, pause, cancel, use
//! mobile data. Out: the files at their places. The manager enforces digests where it can; whoever
//! asked checks them again.

mod built_in;
mod manager;
mod way;

use std::pin::pin;

use futures_util::future::{Either, select};
use system_image_fetch::Progress;
use tokio::sync::watch;

pub use self::manager::{Manager, ManagerError};
pub use self::way::{Order, Way};

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
pub struct Control {
    wanted: watch::Receiver<Wanted>,
    mobile_data: watch::Receiver<bool>,
}

/// Says what is wanted.
#[derive(Clone, Debug)]
pub struct Handle {
    wanted: watch::Sender<Wanted>,
    mobile_data: watch::Sender<bool>,
}

impl Control {
    /// A control and the handle that steers it.
    pub fn new() -> (Handle, Self) {
        let (want, wanted) = watch::channel(Wanted::Run);
        let (allow, mobile_data) = watch::channel(false);
        let handle = Handle {
            wanted: want,
            mobile_data: allow,
        };
        let control = Self {
            wanted,
            mobile_data,
        };
        (handle, control)
    }

    /// A control that always lets go on.
    pub fn none() -> Self {
        Self::new().1
    }

    /// An error if the transfer is to be given up.
    pub fn check(&self) -> Result<(), Canceled> {
        match self.wanted() {
            Wanted::Cancel => Err(Canceled),
            Wanted::Run | Wanted::Pause => Ok(()),
        }
    }

    /// What is wanted now.
    fn wanted(&self) -> Wanted {
        *self.wanted.borrow()
    }

    /// Whether the user allows mobile data for this transfer, whatever the settings say.
    fn mobile_data(&self) -> bool {
        *self.mobile_data.borrow()
    }

    /// Waits until something else than this is wanted.
    async fn differs(&mut self, from: Wanted, mobile_data: bool) {
        let wanted = pin!(self.wanted.wait_for(|wanted| *wanted != from));
        let mobile_data = pin!(self.mobile_data.wait_for(|now| *now != mobile_data));
        let nobody_left = match select(wanted, mobile_data).await {
            Either::Left((seen, _)) => seen.is_err(),
            Either::Right((seen, _)) => seen.is_err(),
        };
        if nobody_left {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until something else than going on is wanted.
    async fn interrupted(&mut self) -> Wanted {
        match self.wanted.wait_for(|wanted| *wanted != Wanted::Run).await {
            Ok(wanted) => *wanted,
            // Nobody is left who could want it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the transfer shall go on, or be given up.
    async fn go_on(&mut self) -> Result<(), Canceled> {
        let wanted = self.wanted.wait_for(|wanted| *wanted != Wanted::Pause);
        match wanted.await {
            Ok(wanted) if *wanted == Wanted::Run => Ok(()),
            Ok(_) | Err(_) => Err(Canceled),
        }
    }
}

impl Handle {
    /// Wants something else from now on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// Allows mobile data from now on, whatever the settings say, or leaves it to them again.
    pub fn allow_mobile(&self, allowed: bool) {
        self.mobile_data.send_replace(allowed);
    }
}

/// Runs `work` unless the control says to give up. What it was doing is dropped then.
pub async fn unless_canceled<T, E: From<Canceled>>(
    mut control: Control,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
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

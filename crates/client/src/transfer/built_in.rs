//! The engine in this process.

use std::pin::pin;

use futures_util::future::{Either, select};
use system_image_fetch::{Fetcher, Request};

use super::{Control, Event, OnEvent};

/// Brings the files. A pause keeps what has been received.
pub(super) async fn bring(
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

//! The download manager on the bus (client spec, section 13.4).
//!
//! It knows digests but no sizes, so bytes are counted here, and it takes no name that exists, so
//! what is there is looked at first. What it says of a failed file is turned into the errors of the
//! engine in this process.

use std::fs::{self, File};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::future::{Either, select};
use system_image_bus::download::{
    self, Cause, Control as Asked, DownloadError, Failure, Group, Record,
};
use system_image_durable as durable;
use system_image_fetch::{Digest, FetchError, Progress, Request, Size, Trouble};
use system_image_formats::hash::Hasher;
use tokio::time::timeout;
use zbus::Connection;

use super::{Canceled, Control, Event, OnEvent, Order, Wanted};

/// How long a manager may take to give up what it does.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(10);

/// The manager.
#[derive(Clone, Debug)]
pub struct Manager {
    pub(super) connection: Connection,
    /// How long it may be silent.
    pub(super) patience: Duration,
}

/// Why the manager did not bring a file, where the engine in this process has no word for it.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// It has other content than it must have.
    #[error("HASH ERROR: {destination}")]
    Damaged {
        /// Where it should have gone.
        destination: Utf8PathBuf,
    },
    /// It failed.
    #[error("{why}: {url}")]
    Failed {
        /// In the manager's words.
        why: String,
        /// Which file, or what else the manager says.
        url: String,
    },
    /// More bytes come than the files have.
    #[error("the files have more than {max} bytes")]
    TooLong {
        /// How many they should have.
        max: u64,
    },
    /// No signal came for too long.
    #[error("the download manager has been silent for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The manager itself failed, when the download had begun.
    #[error("the download manager does not go on")]
    Stuck(#[source] DownloadError),
}

impl ManagerError {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "try again; if it stays, the server's copy is damaged",
            Self::Failed { .. } => "check the network and try again",
            Self::TooLong { .. } => {
                "the server has another file there, or a proxy or log-in page answers instead"
            }
            Self::Silent(_) => {
                "it may wait for Wi-Fi: connect to one, or allow mobile data with --override-gsm"
            }
            Self::Stuck(_) => "set `downloader` of `[updater]` to `built-in`, and try again",
        }
    }
}

/// Why the manager itself is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unable {
    /// It is not there, does not do what it is asked for, or has gone.
    #[error("the download manager cannot be used")]
    Manager(#[from] DownloadError),
    /// It says that it has finished.
    #[error("the download manager has not put `{0}` there")]
    Elsewhere(Utf8PathBuf),
}

/// How a download ended that brought nothing.
#[derive(Debug)]
pub(super) enum Ended {
    /// Because of the manager: there is another way.
    Unable(Unable),
    /// Because of the files, the network or the user.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Ended {
    Ended::Failed(error.into())
}

fn unable(error: DownloadError) -> Ended {
    Ended::Unable(error.into())
}

impl Manager {
    pub(super) async fn bring(
        &self,
        order: Order<'_>,
        control: Control,
        on_event: OnEvent<'_>,
    ) -> Result<(), Ended> {
        let (lacking, there) = lacking(order.requests)?;
        if lacking.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = lacking.iter().map(record).collect();
        let headers = [("User-Agent", order.server.agent.as_str())];
        let mobile_data = order.mobile_data || control.mobile_data();
        let group = Group::create(&self.connection, &records, mobile_data, &headers).await;
        let mut running = Running {
            group: Some(Arc::new(group.map_err(unable)?)),
            patience: self.patience,
            settings_allow: order.mobile_data,
            there,
            max: lacking.iter().map(size).sum(),
            received: 0,
        };
        let ended = running.run(&lacking, control, on_event).await;
        if running.group.is_some() {
            running.give_up().await;
        }
        ended?;
        lacking.iter().try_for_each(check)
    }
}

/// A group at work. Dropping it has the manager give it up.
struct Running {
    /// None when it has ended.
    group: Option<Arc<Group>>,
    patience: Duration,
    /// Whether the settings allow mobile data.
    settings_allow: bool,
    /// Bytes that were there before.
    there: u64,
    /// Bytes that may come.
    max: u64,
    /// Bytes that have come.
    received: u64,
}

impl Running {
    async fn run(
        &mut self,
        requests: &[Request],
        mut control: Control,
        on_event: OnEvent<'_>,
    ) -> Result<(), Ended> {
        let group = Arc::clone(self.group.as_ref().expect("it has just begun"));
        let mut mobile_data = self.settings_allow || control.mobile_data();
        group.allow_mobile(mobile_data).await.map_err(unable)?;
        group.start().await.map_err(unable)?;
        let mut asked = Wanted::Run;
        loop {
            let user_allows = control.mobile_data();
            let allowed = self.settings_allow || user_allows;
            if allowed != mobile_data {
                mobile_data = allowed;
                let told = group.allow_mobile(allowed).await;
                told.map_err(|error| self.stuck(error))?;
            }
            let wanted = control.wanted();
            if wanted != asked {
                let done = match wanted {
                    Wanted::Run => group.resume().await,
                    Wanted::Pause => group.pause().await,
                    Wanted::Cancel => return Err(failed(Canceled)),
                };
                done.map_err(|error| self.stuck(error))?;
                asked = wanted;
            }
            let patience = match asked {
                Wanted::Pause => Duration::MAX,
                Wanted::Run | Wanted::Cancel => self.patience,
            };
            let next = pin!(timeout(patience, group.next()));
            let event = match select(next, pin!(control.differs(asked, user_allows))).await {
                Either::Left((Ok(Some(event)), _)) => event,
                // It ends with an event that is the last.
                Either::Left((Ok(None), _)) => Err(DownloadError::Left),
                Either::Left((Err(_), _)) => return Err(failed(ManagerError::Silent(patience))),
                Either::Right(_) => continue,
            };
            let event = event.map_err(|error| self.stuck(error))?;
            if event.is_last() {
                self.group = None;
            }
            match event {
                download::Event::Started
                | download::Event::Processing(_)
                | download::Event::Unmoved(Asked::Start | Asked::Cancel) => {}
                download::Event::Progress { received, .. } => {
                    self.received = received;
                    if received > self.max {
                        return Err(failed(ManagerError::TooLong { max: self.max }));
                    }
                    on_event(Event::Progress(Progress {
                        received: self.there + received,
                        total: Some(self.there + self.max),
                    }));
                }
                download::Event::Paused | download::Event::Unmoved(Asked::Pause) => {
                    on_event(Event::Paused);
                }
                download::Event::Resumed | download::Event::Unmoved(Asked::Resume) => {
                    on_event(Event::Resumed);
                }
                download::Event::Finished(_) => return Ok(()),
                download::Event::Canceled => return Err(failed(Canceled)),
                download::Event::Failed(failure) => return Err(translate(&failure, requests)),
            }
        }
    }

    /// What a failure of the manager means: when nothing has come yet, and when it is gone, there
    /// is no use in it.
    fn stuck(&mut self, error: DownloadError) -> Ended {
        if let DownloadError::Left = error {
            self.group = None;
        } else if self.received > 0 {
            return failed(ManagerError::Stuck(error));
        }
        unable(error)
    }

    /// Has the manager give the group up, and waits until it has.
    async fn give_up(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        let over = async {
            if group.cancel().await.is_ok() {
                while let Some(Ok(_)) = group.next().await {}
            }
        };
        // Nothing is lost but the time of a manager that does not listen.
        let _ = timeout(GIVES_UP_WITHIN, over).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            tokio::spawn(async move { group.cancel().await });
        }
    }
}

fn record(request: &Request) -> Record {
    Record {
        url: request.url.clone(),
        destination: request.destination.clone(),
        sha256: request.digest.as_ref().and_then(Digest::sha256),
    }
}

fn size(request: &Request) -> u64 {
    match request.size {
        Size::Exactly(size) | Size::AtMost(size) => size,
    }
}

/// The requests whose files are not there, and the bytes of those that are. What is in their way is
/// removed, because the manager neither replaces a file nor starts its own `.tmp` over.
pub(super) fn lacking(requests: &[Request]) -> anyhow::Result<(Vec<Request>, u64)> {
    let (mut lacking, mut there) = (Vec::new(), 0);
    for request in requests {
        let place = &request.destination;
        if is_whole(request).with_context(|| format!("cannot read `{place}`"))? {
            there += size(request);
            continue;
        }
        for path in [place, &temporary(place)] {
            durable::remove(path).with_context(|| format!("cannot remove `{path}`"))?;
        }
        lacking.push(request.clone());
    }
    Ok((lacking, there))
}

/// Where the manager writes what it has of a file.
fn temporary(place: &Utf8Path) -> Utf8PathBuf {
    format!("{place}.tmp").into()
}

fn is_whole(request: &Request) -> io::Result<bool> {
    let mut file = match File::open(&request.destination) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(want) = &request.digest else {
        return Ok(false);
    };
    if file.metadata()?.len() != size(request) {
        return Ok(false);
    }
    let mut hasher = Hasher::default();
    io::copy(&mut file, &mut hasher)?;
    Ok(Digest::from(hasher.finish()) == *want)
}

/// Looks at a file that the manager says is complete: its place and its size.
fn check(request: &Request) -> Result<(), Ended> {
    let place = &request.destination;
    let got = match fs::symlink_metadata(place) {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Err(Ended::Unable(Unable::Elsewhere(place.clone()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Ended::Unable(Unable::Elsewhere(place.clone())));
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            return Err(failed(error.context(format!("cannot read `{place}`"))));
        }
    };
    let url = request.url.clone();
    let wrong = match request.size {
        Size::Exactly(want) if got != want => FetchError::Size { url, want, got },
        Size::AtMost(max) if got > max => FetchError::TooLong { url, max },
        Size::Exactly(_) | Size::AtMost(_) => return Ok(()),
    };
    durable::remove(place).with_context(|| format!("cannot remove `{place}`"))?;
    Err(failed(wrong))
}

/// What the manager says of a file, in the words of the engine in this process.
fn translate(failure: &Failure, requests: &[Request]) -> Ended {
    // Both a URL and what follows it may have colons.
    let told = requests.iter().find_map(|request| {
        let text = failure.text.strip_prefix(&request.url)?;
        Some((request, text.strip_prefix(':')?))
    });
    let (said, text) = told.map_or(("", failure.text.as_str()), |(request, text)| {
        (request.url.as_str(), text)
    });
    let lost = |url: &str, trouble| FetchError::Transfer {
        url: url.to_owned(),
        trouble,
        source: None,
    };
    let other = |why: &str, url: &str| {
        failed(ManagerError::Failed {
            why: why.to_owned(),
            url: url.to_owned(),
        })
    };
    match &failure.cause {
        Some(Cause::Http { url, status, .. }) => {
            let (url, status) = (url.clone(), u16::try_from(*status).unwrap_or_default());
            failed(match status {
                404 | 410 => FetchError::Absent { url, status },
                _ => FetchError::Status { url, status },
            })
        }
        Some(Cause::Network { url, code, text }) => match code {
            1 | 3 => failed(lost(url, Trouble::Unreachable)),
            2 => failed(lost(url, Trouble::Lost)),
            4 => failed(lost(url, Trouble::Stalled)),
            _ => other(text, url),
        },
        Some(Cause::Authentication { url, text, .. }) => other(text, url),
        Some(Cause::Process { url, name, .. }) => other(name, url),
        None if text.ends_with("HASH ERROR") => failed(ManagerError::Damaged {
            destination: told.map_or(text.into(), |(request, _)| request.destination.clone()),
        }),
        None if text.is_empty() => failed(lost(said, Trouble::Unreachable)),
        None => other(text, said),
    }
}

#[cfg(test)]
mod tests {
    use system_image_fetch::How;

    use super::*;

    #[test]
    fn failures_are_told_in_the_words_of_the_engine_in_this_process() {
        let requests = [Request {
            url: "http://h:1/a".into(),
            destination: "/cache/a".into(),
            size: Size::Exactly(1),
            digest: None,
            how: How::default(),
        }];
        let url = || "http://h:1/a".to_owned();
        let http = |status| {
            Some(Cause::Http {
                url: url(),
                status,
                reason: String::new(),
            })
        };
        let network = |code, text: &str| {
            Some(Cause::Network {
                url: url(),
                code,
                text: text.into(),
            })
        };
        let cases = [
            (
                "http://h:1/a:NETWORK ERROR",
                http(404),
                "The requested URL returned error: 404: http://h:1/a",
            ),
            (
                "http://h:1/a:NETWORK ERROR",
                http(503),
                "The requested URL returned error: 503: http://h:1/a",
            ),
            (
                "http://h:1/a:",
                network(1, "Connection refused"),
                "Could not connect to the server: http://h:1/a",
            ),
            (
                "http://h:1/a:",
                network(6, "TLS handshake failed"),
                "TLS handshake failed: http://h:1/a",
            ),
            (
                "http://h:1/a:",
                None,
                "Could not connect to the server: http://h:1/a",
            ),
            ("http://h:1/a:HASH ERROR", None, "HASH ERROR: /cache/a"),
            (
                "http://h:1/b:HASH ERROR",
                None,
                "HASH ERROR: http://h:1/b:HASH ERROR",
            ),
            (
                "http://h:1/a:FILE SYSTEM ERROR: 2",
                None,
                "FILE SYSTEM ERROR: 2: http://h:1/a",
            ),
            ("odd", None, "odd: "),
        ];
        for (text, cause, want) in cases {
            let failure = Failure {
                text: text.to_owned(),
                cause,
            };
            let Ended::Failed(error) = translate(&failure, &requests) else {
                panic!("{text} is not the manager's fault");
            };
            assert_eq!(error.to_string(), want, "{text}");
        }
    }
}

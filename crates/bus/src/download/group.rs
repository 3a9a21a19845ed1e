//! A group of files that the download manager fetches for us.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream};
use zbus::{OwnedObjectPath, Variant};

use super::event::{self, Signal};
use super::queue::Queue;
use super::{DownloadError, Event, Family, Record, present};
use crate::call::Remote;
use crate::presence;
use crate::pump::Pump;

/// How long the manager may take to make a group, which includes its start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group that was made. The manager goes on with it when the value is dropped; [`Group::cancel`]
/// ends it.
#[derive(Debug)]
pub struct Group {
    connection: Connection,
    family: Family,
    /// The manager's unique name: who owns the well-known one later knows nothing of this group.
    manager: String,
    path: OwnedObjectPath,
    events: Arc<Queue>,
    _pump: Pump,
}

impl Group {
    /// Makes a group and listens to it; it is not started yet.
    ///
    /// `headers` go into each request, such as `User-Agent`. Some managers ignore `allow_mobile`
    /// here, so set it once more by [`Group::allow_mobile`].
    pub async fn create(
        connection: &Connection,
        records: &[Record],
        allow_mobile: bool,
        headers: &[(&str, &str)],
    ) -> Result<Self, DownloadError> {
        const METHOD: &str = "createDownloadGroup";
        let family = present(connection).await?.ok_or(DownloadError::Absent)?;
        let manager = Remote {
            connection,
            service: family.service(),
            path: "/",
            interface: family.manager(),
        };
        let records: Vec<_> = records.iter().map(wire).collect();
        let metadata: HashMap<&str, Variant<'_>> = HashMap::new();
        let headers: HashMap<&str, &str> = headers.iter().copied().collect();
        let body = (records, "sha256", allow_mobile, metadata, headers);
        let answer = manager.send(METHOD, &body, PATIENCE).await?;
        let path: OwnedObjectPath = manager.read(METHOD, &answer)?;
        let unique = answer.header().sender().map(ToString::to_string);
        let unique = unique.ok_or(DownloadError::Left)?;

        let listen = |error| DownloadError::Listen(Box::new(error));
        let signals = signals(connection, &unique, &path, family).await;
        let leaves = leaves(connection, &unique).await;
        let (signals, leaves) = (signals.map_err(listen)?, leaves.map_err(listen)?);
        // It may have gone before we listened.
        if !presence::runs(connection, &unique).await? {
            return Err(DownloadError::Left);
        }
        let events = Arc::new(Queue::default());
        let pump = Pump::start(receive(signals, leaves, Arc::clone(&events)));
        Ok(Self {
            connection: connection.clone(),
            family,
            manager: unique,
            path,
            events,
            _pump: pump,
        })
    }

    /// Waits for the next event; none after the last one or an error. No event is lost if this is
    /// dropped.
    pub async fn next(&self) -> Option<Result<Event, DownloadError>> {
        self.events.next().await
    }

    /// Whether it may use mobile data, from now on.
    pub async fn allow_mobile(&self, allowed: bool) -> Result<(), DownloadError> {
        let group = self.remote();
        Ok(group.call("allowGSMDownload", &allowed).await?)
    }

    /// Begins. [`Event::Started`] follows when its turn comes.
    pub async fn start(&self) -> Result<(), DownloadError> {
        self.control("start").await
    }

    /// Stands still; [`Event::Paused`] follows.
    pub async fn pause(&self) -> Result<(), DownloadError> {
        self.control("pause").await
    }

    /// Goes on; [`Event::Resumed`] follows when its turn comes.
    pub async fn resume(&self) -> Result<(), DownloadError> {
        self.control("resume").await
    }

    /// Gives up and deletes what there is; [`Event::Canceled`] follows.
    pub async fn cancel(&self) -> Result<(), DownloadError> {
        self.control("cancel").await
    }

    async fn control(&self, method: &'static str) -> Result<(), DownloadError> {
        Ok(self.remote().call(method, &()).await?)
    }

    fn remote(&self) -> Remote<'_> {
        Remote {
            connection: &self.connection,
            service: &self.manager,
            path: &self.path,
            interface: self.family.group(),
        }
    }
}

/// The form of the bus: URL, destination, digest or nothing.
fn wire(record: &Record) -> (&str, &str, String) {
    let sha256 = record.sha256.as_ref().map(ToString::to_string);
    let (url, destination) = (&record.url, record.destination.as_str());
    (url, destination, sha256.unwrap_or_default())
}

/// All signals of the group, in one stream so that they stay in order. Nobody else than the manager
/// can forge one, because the sender is given by its unique name.
async fn signals(
    connection: &Connection,
    manager: &str,
    path: &OwnedObjectPath,
    family: Family,
) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(manager)
        .path(path)
        .interface(family.group())
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}

/// Tells when the manager leaves the bus.
async fn leaves(connection: &Connection, manager: &str) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .add_arg(manager)
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}

async fn receive(mut signals: MessageStream, mut leaves: MessageStream, events: Arc<Queue>) {
    let mut cause = None;
    loop {
        // The first is looked at first: what the manager said before it left counts.
        let event = match select(signals.next(), leaves.next()).await {
            Either::Left((Some(Ok(signal)), _)) => match read(&signal) {
                Ok(Signal::Event(Event::Failed(mut failure))) => {
                    failure.cause = cause.take();
                    Ok(Event::Failed(failure))
                }
                Ok(Signal::Event(event)) => Ok(event),
                Ok(Signal::Cause(known)) => {
                    cause = Some(known);
                    continue;
                }
                Ok(Signal::Other) => continue,
                Err(error) => Err(error),
            },
            _ => Err(DownloadError::Left),
        };
        let last = event.as_ref().map_or(true, Event::is_last);
        events.push(event);
        if last {
            return;
        }
    }
}

fn read(signal: &Message) -> Result<Signal, DownloadError> {
    let header = signal.header();
    let name = header.member().map_or("", |name| name.as_str());
    event::read(name, signal).map_err(|error| DownloadError::Garbled {
        signal: name.to_owned(),
        source: Box::new(error),
    })
}

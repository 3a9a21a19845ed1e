//! Tells that the network may have changed, so that somebody looks again.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::watch;
use zbus::Variant;
use zbus::message::Type;
use zbus::names::InterfaceName;
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::manager::{NAME, PATH};
use crate::pump::Pump;

/// The properties of `NetworkManager` that [`Network`](crate::Network) depends on.
const PROPERTIES: [&str; 5] = [
    "ActiveConnections",
    "Metered",
    "PrimaryConnection",
    "PrimaryConnectionType",
    "State",
];

/// Changes of the network.
///
/// They come from `NetworkManager`, also when it joins or leaves the bus. Where it is missing nobody
/// tells, so whoever waits there looks again from time to time.
#[derive(Debug)]
pub struct Changes {
    seen: watch::Receiver<()>,
    _pump: Pump,
}

/// The connection to the bus has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection to the message bus has ended")]
pub struct Disconnected;

impl Changes {
    /// Begins to watch. What changes from now on is not missed.
    pub async fn watch(connection: &Connection) -> zbus::Result<Self> {
        let signal = || MatchRule::builder().msg_type(Type::Signal);
        let rules = [
            signal()
                .sender(NAME)
                .path(PATH)
                .interface("org.freedesktop.DBus.Properties")
                .member("PropertiesChanged")
                .add_arg(NAME)
                .build()?,
            // What it sent before it had the other.
            signal()
                .sender(NAME)
                .path(PATH)
                .interface(NAME)
                .member("PropertiesChanged")
                .build()?,
            signal()
                .sender("org.freedesktop.DBus")
                .interface("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .add_arg(NAME)
                .build()?,
        ];
        let mut streams = Vec::with_capacity(rules.len());
        for rule in rules {
            streams.push(MessageStream::for_match_rule(rule, connection, None).await?);
        }
        let mut signals = select_all(streams);
        let (tell, seen) = watch::channel(());
        let pump = Pump::start(async move {
            while let Some(Ok(signal)) = signals.next().await {
                if matters(&signal) {
                    tell.send_replace(());
                }
            }
        });
        Ok(Self { seen, _pump: pump })
    }

    /// Waits for a change. Those since the last call count as one, and none is lost if this is dropped.
    pub async fn changed(&mut self) -> Result<(), Disconnected> {
        self.seen.changed().await.map_err(|_| Disconnected)
    }
}

fn matters(signal: &Message) -> bool {
    type Changed<'a> = HashMap<&'a str, Variant<'a>>;
    let body = signal.body();
    let named = |changed: Changed<'_>, invalidated: &[&str]| {
        let mut names = changed.keys().chain(invalidated);
        names.any(|name| PROPERTIES.contains(name))
    };
    match signal.header().interface().map(InterfaceName::as_str) {
        Some("org.freedesktop.DBus.Properties") => body
            .deserialize::<(&str, Changed<'_>, Vec<&str>)>()
            .is_ok_and(|(_, changed, invalidated)| named(changed, &invalidated)),
        Some(NAME) => body
            .deserialize::<Changed<'_>>()
            .is_ok_and(|changed| named(changed, &[])),
        _ => true,
    }
}

//! Which of the two ways it is, and what happens when the manager cannot be used (client spec,
//! section 13.2).

use std::env;
use std::time::Duration;

use system_image_bus::{Kernel, Link, Network, download};
use system_image_fetch::Request;
use system_image_formats::config::Downloader;
use zbus::Connection;

use super::manager::{Ended, Manager};
use super::{Control, OnEvent, built_in};
use crate::log::Log;
use crate::server::Server;

/// Chooses the engine in this process, or the manager, whatever is configured.
const CHOICE: &str = "SYSTEMIMAGE_PYCURL";

/// How long the manager may be silent, in seconds.
const PATIENCE: &str = "SYSTEMIMAGE_REACTOR_TIMEOUT";

/// The same where nothing is set.
const USUAL_PATIENCE: Duration = Duration::from_secs(600);

/// What brings payloads.
#[derive(Clone, Debug)]
pub enum Way {
    /// The engine in this process.
    BuiltIn,
    /// The download manager on the bus, and the engine in this process where that one cannot.
    Manager(Manager),
}

/// What is to be brought.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Where from.
    pub server: &'a Server,
    /// What. The manager never sends more than their sizes add up to.
    pub requests: &'a [Request],
    /// Whether the settings allow mobile data.
    pub mobile_data: bool,
    /// Where to tell what happens.
    pub log: &'a Log,
}

impl Way {
    /// Chooses by the environment, the configuration, and what is on the bus.
    pub async fn choose(
        connection: Option<&Connection>,
        configured: Downloader,
        log: &Log,
    ) -> Self {
        let choice = decide(env::var(CHOICE).ok().as_deref(), configured);
        let connection = match (choice, connection) {
            (Downloader::BuiltIn, _) => return Self::BuiltIn,
            (_, Some(connection)) => connection,
            (choice, None) => {
                if choice == Downloader::Manager {
                    log.error("there is no message bus: downloading without a download manager");
                }
                return Self::BuiltIn;
            }
        };
        if choice == Downloader::Auto {
            match download::present(connection).await {
                Ok(Some(_)) => {}
                Ok(None) => return Self::BuiltIn,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    log.error(&format!("no download manager can be found: {error:#}"));
                    return Self::BuiltIn;
                }
            }
        }
        let patience = env::var(PATIENCE).ok().and_then(|text| seconds(&text));
        Self::Manager(Manager {
            connection: connection.clone(),
            patience: patience.unwrap_or(USUAL_PATIENCE),
        })
    }

    /// Brings the files.
    pub async fn bring(
        &self,
        order: Order<'_>,
        control: Control,
        on_event: OnEvent<'_>,
    ) -> anyhow::Result<()> {
        let fetcher = &order.server.fetcher;
        let Self::Manager(manager) = self else {
            return built_in::bring(fetcher, order.requests, control, on_event).await;
        };
        let error = match manager.bring(order, control.clone(), on_event).await {
            Ok(()) => return Ok(()),
            Err(Ended::Failed(error)) => return Err(error),
            Err(Ended::Unable(error)) => anyhow::Error::from(error),
        };
        // Only the manager could have waited for a network that costs nothing.
        let allowed = order.mobile_data || control.mobile_data();
        let network = Network::now(Some(&manager.connection), &Kernel::default()).await;
        if !allowed && costs(network) {
            return Err(error);
        }
        order
            .log
            .error(&format!("{error:#}; downloading without it"));
        let (lacking, _) = super::manager::lacking(order.requests)?;
        built_in::bring(fetcher, &lacking, control, on_event).await
    }
}

/// What the environment says comes first: that is the original's.
fn decide(environment: Option<&str>, configured: Downloader) -> Downloader {
    match environment.map(str::to_ascii_lowercase).as_deref() {
        Some("1" | "yes" | "true") => Downloader::BuiltIn,
        Some(_) => Downloader::Manager,
        None => configured,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// Whether it is known to cost: where nobody knows, the user's own download may run.
fn costs(network: Network) -> bool {
    matches!(network.link, Link::Mobile | Link::Bluetooth) || network.metered == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_before_the_configuration() {
        use Downloader::{Auto, BuiltIn, Manager};
        for (environment, configured, chosen) in [
            (None, Auto, Auto),
            (None, BuiltIn, BuiltIn),
            (None, Manager, Manager),
            (Some("1"), Manager, BuiltIn),
            (Some("Yes"), Auto, BuiltIn),
            (Some("TRUE"), Auto, BuiltIn),
            (Some("0"), BuiltIn, Manager),
            (Some(""), Auto, Manager),
            (Some("on"), Auto, Manager),
        ] {
            let got = decide(environment, configured);
            assert_eq!(got, chosen, "{environment:?} {configured:?}");
        }
    }

    #[test]
    fn patience_is_in_seconds() {
        for (text, seconds_of_it) in [
            ("600", Some(600.0)),
            (" 0.5 ", Some(0.5)),
            ("-1", None),
            ("x", None),
            ("inf", None),
        ] {
            let wanted = seconds_of_it.map(Duration::from_secs_f64);
            assert_eq!(seconds(text), wanted, "{text}");
        }
    }
}

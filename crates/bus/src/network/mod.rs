//! What kind of network the device has now, and how to learn that it has another.

mod changes;
mod manager;
mod routes;

use zbus::Connection;

pub use self::changes::{Changes, Disconnected};
use crate::{Kernel, Source};

/// What the traffic goes over in the end: below a tunnel, what the tunnel goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is no route to anywhere.
    Offline,
    /// A cable.
    Ethernet,
    /// A wireless LAN.
    Wifi,
    /// A modem.
    Mobile,
    /// Another device over Bluetooth, mostly a telephone.
    Bluetooth,
    /// There is a network, but of a kind that nobody knows.
    Unknown,
}

/// The network that the device uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its kind.
    pub link: Link,
    /// Whether its traffic costs money, if somebody knows or guesses.
    pub metered: Option<bool>,
    /// Who says so.
    pub source: Source,
}

impl Network {
    /// The network as it is now.
    ///
    /// `NetworkManager` is asked if it runs. Where it does not or knows nothing of the connection,
    /// because something else made it, and where there is no bus, the kernel's routes tell.
    pub async fn now(connection: Option<&Connection>, kernel: &Kernel) -> Self {
        let service = match connection {
            Some(connection) => manager::facts(connection).await,
            None => None,
        };
        if let Some(network) = service.as_ref().and_then(manager::decide) {
            return network;
        }
        let link = routes::link(kernel);
        Self {
            link,
            metered: None,
            source: match service {
                // Both say the same.
                Some(facts) if link == Link::Offline && !facts.is_online() => Source::Service,
                _ => Source::Kernel,
            },
        }
    }

    /// Whether a download may run that must not cost anything: over a cable or a wireless LAN, unless
    /// somebody says that this one costs too.
    pub fn is_free(&self) -> bool {
        matches!(self.link, Link::Ethernet | Link::Wifi) && self.metered != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cable_and_wireless_lan_are_free_unless_metered() {
        let cases = [
            (Link::Ethernet, None, true),
            (Link::Wifi, None, true),
            (Link::Wifi, Some(false), true),
            (Link::Wifi, Some(true), false),
            (Link::Ethernet, Some(true), false),
            (Link::Mobile, Some(false), false),
            (Link::Bluetooth, None, false),
            (Link::Unknown, None, false),
            (Link::Offline, None, false),
        ];
        for (link, metered, free) in cases {
            let network = Network {
                link,
                metered,
                source: Source::Service,
            };
            assert_eq!(network.is_free(), free, "{network:?}");
        }
    }
}

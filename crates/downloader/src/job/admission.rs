//! May a download use the network as it is now, and if not, what does it wait for?
//! (specification, section 14).

use std::fmt;

use system_image_bus::{Link, Network, Source};

/// What a download waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its turn: another one of its owner runs.
    Turn,
    /// A network that costs nothing: it may not use mobile data, and this is not Wi-Fi or a cable.
    Free,
    /// Any network: there is none.
    Network,
}

impl Held {
    /// The word for machines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Free => "wifi",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turn => "waits for its turn",
            Self::Free => "waits for Wi-Fi or a cable",
            Self::Network => "waits for a network",
        })
    }
}

/// Whether a download may run.
///
/// What may use mobile data may always try. What may not runs over Wi-Fi and cable, below a tunnel
/// too, unless somebody says that it is metered. Where nobody but the kernel can be asked, a network
/// whose kind it does not know is let through, as it always was.
pub fn admit(network: &Network, mobile_data: bool) -> Result<(), Held> {
    if mobile_data || network.is_free() {
        return Ok(());
    }
    match (network.source, network.link) {
        (Source::Kernel, Link::Unknown | Link::Offline) => Ok(()),
        (_, Link::Offline) => Err(Held::Network),
        _ => Err(Held::Free),
    }
}

/// Whether a transfer that could not reach its server waits rather than fails: there is no network,
/// and somebody will tell when there is one.
pub fn is_lost(network: &Network) -> bool {
    network.link == Link::Offline && network.source == Source::Service
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_cost_runs_where_nothing_does() {
        use Link::{Bluetooth, Ethernet, Mobile, Offline, Unknown, Wifi};
        use Source::{Kernel, Service};
        let held = Err(Held::Free);
        for (link, metered, source, want) in [
            (Wifi, None, Service, Ok(())),
            (Wifi, Some(true), Service, held),
            (Ethernet, Some(false), Service, Ok(())),
            (Mobile, None, Service, held),
            (Bluetooth, None, Service, held),
            (Unknown, None, Service, held),
            (Offline, None, Service, Err(Held::Network)),
            (Wifi, None, Kernel, Ok(())),
            (Mobile, None, Kernel, held),
            (Unknown, None, Kernel, Ok(())),
            (Offline, None, Kernel, Ok(())),
        ] {
            let network = Network {
                link,
                metered,
                source,
            };
            assert_eq!(admit(&network, false), want, "{network:?}");
            assert_eq!(admit(&network, true), Ok(()), "{network:?}");
        }
    }
}

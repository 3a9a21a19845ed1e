//! The network as `NetworkManager` tells it.

use zbus::Connection;
use zbus::OwnedObjectPath;

use super::{Link, Network};
use crate::call::Remote;
use crate::{Source, presence};

/// Its name on the bus, and that of its main interface.
pub(super) const NAME: &str = "org.freedesktop.NetworkManager";

/// Its main object.
pub(super) const PATH: &str = "/org/freedesktop/NetworkManager";

/// Tunnels in tunnels that are looked through.
const DEEPEST: usize = 4;

/// What was read of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The active connection that leads to the world; for a classic VPN often what is below it.
    primary: Option<String>,
    /// Its type, also told by the main object.
    primary_kind: String,
    metered: Metered,
    active: Vec<Active>,
}

/// An active connection.
#[derive(Clone, Debug, Default)]
struct Active {
    path: String,
    /// A connection's type, such as `802-11-wireless`.
    kind: String,
    /// Whether it is not still, or again, coming or going.
    activated: bool,
    /// For a VPN, the active connection that it goes through.
    below: String,
    devices: Vec<Device>,
}

/// A device that a connection uses; for a VPN, of the connection below.
#[derive(Clone, Copy, Debug, Default)]
struct Device {
    kind: u32,
    metered: Metered,
}

/// `NMMetered`: 0 unknown, 1 yes, 2 no, 3 and 4 the same but guessed.
#[derive(Clone, Copy, Debug, Default)]
struct Metered(u32);

impl Metered {
    fn known(self) -> Option<bool> {
        match self.0 {
            1 | 3 => Some(true),
            2 | 4 => Some(false),
            _ => None,
        }
    }
}

impl Facts {
    /// Whether it knows of a connection to the world.
    pub(super) fn is_online(&self) -> bool {
        self.primary.is_some()
    }
}

/// Asks it, if it runs; it is never started. None if it does not, or does not answer.
pub(super) async fn facts(connection: &Connection) -> Option<Facts> {
    if !presence::runs(connection, NAME).await.ok()? {
        return None;
    }
    let manager = Remote {
        connection,
        service: NAME,
        path: PATH,
        interface: NAME,
    };
    let properties = manager.properties().await.ok()?;
    let primary: Option<OwnedObjectPath> = properties.get("PrimaryConnection");
    let mut facts = Facts {
        primary: primary.map(|path| path.to_string()).filter(is_object),
        primary_kind: properties.get("PrimaryConnectionType").unwrap_or_default(),
        metered: Metered(properties.get("Metered").unwrap_or_default()),
        active: Vec::new(),
    };
    if facts.is_online() {
        let paths: Vec<OwnedObjectPath> = properties.get("ActiveConnections").unwrap_or_default();
        for path in paths {
            // One that went away meanwhile is not active.
            if let Some(active) = active(&manager, &path).await {
                facts.active.push(active);
            }
        }
    }
    Some(facts)
}

async fn active(manager: &Remote<'_>, path: &str) -> Option<Active> {
    const ACTIVATED: u32 = 2;
    let active = Remote {
        path,
        interface: "org.freedesktop.NetworkManager.Connection.Active",
        ..*manager
    };
    let properties = active.properties().await.ok()?;
    let state: u32 = properties.get("State")?;
    let below: Option<OwnedObjectPath> = properties.get("SpecificObject");
    let paths: Vec<OwnedObjectPath> = properties.get("Devices").unwrap_or_default();
    let mut devices = Vec::with_capacity(paths.len());
    for path in &paths {
        devices.extend(device(manager, path).await);
    }
    Some(Active {
        path: path.to_owned(),
        kind: properties.get("Type")?,
        activated: state == ACTIVATED,
        below: below.map(|path| path.to_string()).unwrap_or_default(),
        devices,
    })
}

async fn device(manager: &Remote<'_>, path: &str) -> Option<Device> {
    let device = Remote {
        path,
        interface: "org.freedesktop.NetworkManager.Device",
        ..*manager
    };
    let properties = device.properties().await.ok()?;
    Some(Device {
        kind: properties.get("DeviceType")?,
        metered: Metered(properties.get("Metered").unwrap_or_default()),
    })
}

/// Whether a path is one: `/` stands for none.
#[expect(clippy::ptr_arg, reason = "the form that `Option::filter` wants")]
fn is_object(path: &String) -> bool {
    path.len() > 1
}

/// What network that is; none if it knows of none or not what kind.
pub(super) fn decide(facts: &Facts) -> Option<Network> {
    let primary = facts.primary.as_deref()?;
    let network = |link, devices: &[Device]| Network {
        link,
        metered: metered(devices, facts.metered),
        source: Source::Service,
    };
    let find = |path: &str| facts.active.iter().find(|active| active.path == path);
    let Some(mut active) = find(primary) else {
        return Some(network(link(&facts.primary_kind)?, &[]));
    };
    for _ in 0..DEEPEST {
        if let Some(link) = link(&active.kind) {
            return Some(network(link, &active.devices));
        }
        // A tunnel, or a bridge and the like. A VPN says what it goes through.
        match find(&active.below) {
            Some(below) => active = below,
            None => break,
        }
    }
    // Or at least through what devices.
    let devices = &active.devices;
    if let Some(link) = devices.iter().find_map(|device| device_link(device.kind)) {
        return Some(network(link, devices));
    }
    // Of the others the kernel takes the one with the smallest metric.
    let others = facts.active.iter().filter(|active| active.activated);
    let others = others.filter_map(|active| Some((link(&active.kind)?, active)));
    let (link, below) = others.min_by_key(|(link, _)| preference(*link))?;
    Some(network(link, &below.devices))
}

/// The kind of link of a type of connection; none for tunnels and others that have one below.
fn link(kind: &str) -> Option<Link> {
    match kind {
        // Behind PPPoE and ADSL is a line of one's own.
        "802-3-ethernet" | "infiniband" | "pppoe" | "adsl" => Some(Link::Ethernet),
        "802-11-wireless" | "802-11-olpc-mesh" => Some(Link::Wifi),
        "gsm" | "cdma" | "wimax" => Some(Link::Mobile),
        "bluetooth" => Some(Link::Bluetooth),
        _ => None,
    }
}

/// The same for a type of device (`NMDeviceType`).
fn device_link(kind: u32) -> Option<Link> {
    match kind {
        1 | 9 | 12 => Some(Link::Ethernet),
        2 | 6 => Some(Link::Wifi),
        7 | 8 => Some(Link::Mobile),
        5 => Some(Link::Bluetooth),
        _ => None,
    }
}

/// The order of `NetworkManager`'s own route metrics: 100, 600, 700, 750.
fn preference(link: Link) -> u32 {
    match link {
        Link::Ethernet => 0,
        Link::Wifi => 1,
        Link::Mobile => 2,
        Link::Bluetooth => 3,
        Link::Offline | Link::Unknown => 4,
    }
}

/// What is said of the devices themselves comes first: the whole is judged by its uppermost layer.
fn metered(devices: &[Device], whole: Metered) -> Option<bool> {
    let known = devices.iter().filter_map(|device| device.metered.known());
    known.reduce(|one, other| one || other).or(whole.known())
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn active(path: &str, kind: &str, below: &str, devices: &[(u32, u32)]) -> Active {
        let device = |&(kind, metered): &(u32, u32)| Device {
            kind,
            metered: Metered(metered),
        };
        Active {
            path: path.into(),
            kind: kind.into(),
            activated: true,
            below: below.into(),
            devices: devices.iter().map(device).collect(),
        }
    }

    fn decided(primary: &str, metered: u32, active: &[Active]) -> Option<(Link, Option<bool>)> {
        let facts = Facts {
            primary: Some(primary.into()),
            primary_kind: String::new(),
            metered: Metered(metered),
            active: active.into(),
        };
        decide(&facts).map(|network| (network.link, network.metered))
    }

    #[test]
    fn a_link_is_what_its_connection_is() {
        let cases = [
            ("802-3-ethernet", Some(Link::Ethernet)),
            ("pppoe", Some(Link::Ethernet)),
            ("802-11-wireless", Some(Link::Wifi)),
            ("gsm", Some(Link::Mobile)),
            ("cdma", Some(Link::Mobile)),
            ("bluetooth", Some(Link::Bluetooth)),
            ("", None),
            ("tun", None),
        ];
        for (kind, link) in cases {
            let got = decided("/a", 0, &[active("/a", kind, "/", &[])]);
            assert_eq!(got, link.map(|link| (link, None)), "{kind}");
        }
    }

    #[test]
    fn a_tunnel_is_what_it_goes_through() {
        let wifi = active("/wifi", "802-11-wireless", "/ap", &[(2, 0)]);
        let gsm = active("/gsm", "gsm", "/", &[(8, 3)]);
        let vpn = |below: &str, devices: &[(u32, u32)]| active("/vpn", "vpn", below, devices);
        let wireguard = active("/wg", "wireguard", "/", &[(29, 0)]);
        let leaving = Active {
            activated: false,
            ..wifi.clone()
        };
        let cases: [(&str, &[Active], _); 10] = [
            (
                "/vpn",
                &[vpn("/gsm", &[]), wifi.clone(), gsm.clone()],
                Some(Link::Mobile),
            ),
            (
                "/vpn",
                &[vpn("/wifi", &[]), wifi.clone(), gsm.clone()],
                Some(Link::Wifi),
            ),
            (
                "/vpn",
                &[vpn("/gone", &[(8, 0)]), wifi.clone()],
                Some(Link::Mobile),
            ),
            ("/vpn", &[vpn("/", &[]), gsm.clone()], Some(Link::Mobile)),
            ("/vpn", &[vpn("/vpn", &[])], None),
            (
                "/vpn",
                &[vpn("/wg", &[]), wireguard.clone(), wifi.clone()],
                Some(Link::Wifi),
            ),
            (
                "/wg",
                &[wireguard.clone(), gsm.clone(), wifi.clone()],
                Some(Link::Wifi),
            ),
            (
                "/wg",
                &[wireguard.clone(), gsm.clone(), leaving],
                Some(Link::Mobile),
            ),
            ("/wg", from_ref(&wireguard), None),
            ("/wifi", &[wireguard.clone(), gsm, wifi], Some(Link::Wifi)),
        ];
        for (primary, active, link) in cases {
            let got = decided(primary, 0, active).map(|(link, _)| link);
            assert_eq!(got, link, "{primary} of {active:?}");
        }
    }

    #[test]
    fn a_device_knows_better_than_the_whole_whether_it_is_metered() {
        let cases: [(&[(u32, u32)], u32, _); 8] = [
            (&[], 0, None),
            (&[], 1, Some(true)),
            (&[], 4, Some(false)),
            (&[(2, 0)], 3, Some(true)),
            (&[(2, 1)], 4, Some(true)),
            (&[(2, 2)], 3, Some(false)),
            (&[(2, 4), (2, 3)], 0, Some(true)),
            (&[(2, 9)], 9, None),
        ];
        for (devices, whole, metered) in cases {
            let active = active("/a", "802-11-wireless", "/", devices);
            let got = decided("/a", whole, &[active]);
            assert_eq!(got, Some((Link::Wifi, metered)), "{devices:?} {whole}");
        }
    }

    #[test]
    fn the_main_object_tells_the_type_if_the_connection_does_not() {
        let mut facts = Facts {
            primary: Some("/a".into()),
            primary_kind: "gsm".into(),
            ..Facts::default()
        };
        let link = |facts: &Facts| decide(facts).map(|network| network.link);
        assert_eq!(link(&facts), Some(Link::Mobile));
        facts.primary_kind = "wireguard".into();
        assert_eq!(link(&facts), None);
        facts.primary = None;
        assert_eq!(link(&facts), None);
    }
}

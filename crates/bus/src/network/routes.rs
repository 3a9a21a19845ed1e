//! The network as the kernel tells it: its default routes, and what their interfaces are.

use super::Link;
use crate::Kernel;

/// Layers of interfaces that are looked through, such as a bridge over a bond.
const DEEPEST: usize = 4;

/// The kind of link that the default routes lead over.
pub(super) fn link(kernel: &Kernel) -> Link {
    let read = |file: &str| kernel.read(file).unwrap_or_default();
    let families = [
        parse_v4(&read("proc/net/route")),
        parse_v6(&read("proc/net/ipv6_route")),
    ];
    decide(&families, |name| interface(kernel, name, DEEPEST))
}

/// A route that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    /// Whether it leads everywhere.
    default: bool,
    /// Whether somebody else passes the packets on.
    gateway: bool,
    /// The smaller, the sooner it is taken.
    metric: u32,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Link(Link),
    /// Its packets go out through another interface.
    Tunnel,
}

const UP: u32 = 1;
const GATEWAY: u32 = 2;
const REJECT: u32 = 0x200;

/// Reads `/proc/net/route`: a line of names, then a route a line, numbers as hexadecimal digits
/// except the metric.
fn parse_v4(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [interface, target, _, flags, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let default = [target, mask].iter().all(|field| is_zero(field));
        in_use(interface, flags, default, metric.parse().ok()?)
    };
    text.lines().filter_map(route).collect()
}

/// Reads `/proc/net/ipv6_route`: a route a line, all numbers as hexadecimal digits.
fn parse_v6(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [target, prefix, _, _, _, metric, _, _, flags, interface] = fields[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let default = [target, prefix].iter().all(|field| is_zero(field));
        let metric = u32::from_str_radix(metric, 16).ok()?;
        in_use(interface, flags, default, metric)
    };
    text.lines().filter_map(route).collect()
}

fn is_zero(digits: &str) -> bool {
    digits.bytes().all(|digit| digit == b'0')
}

fn in_use(interface: &str, flags: u32, default: bool, metric: u32) -> Option<Route> {
    let used = flags & UP != 0 && flags & REJECT == 0 && interface != "lo";
    used.then(|| Route {
        interface: interface.to_owned(),
        default,
        gateway: flags & GATEWAY != 0,
        metric,
    })
}

/// The kind of link, from the routes of both families. Each chooses its own; if one of them chooses
/// the modem, that is the answer, because nobody knows which family a server is reached over.
fn decide(families: &[Vec<Route>], interface: impl Fn(&str) -> Interface) -> Link {
    let links = families
        .iter()
        .filter_map(|routes| chosen(routes, &interface));
    let links: Vec<_> = links.collect();
    let mobile = links.iter().find(|link| **link == Link::Mobile);
    *mobile.or(links.first()).unwrap_or(&Link::Offline)
}

/// The link that one family uses; none if it leads nowhere.
fn chosen(routes: &[Route], interface: impl Fn(&str) -> Interface) -> Option<Link> {
    let best = |wanted: fn(&Route) -> bool| {
        let routes = routes.iter().filter(|route| wanted(route));
        let links = routes.filter_map(|route| match interface(&route.interface) {
            Interface::Link(link) => Some((route.metric, link)),
            Interface::Tunnel => None,
        });
        links
            .min_by_key(|(metric, _)| *metric)
            .map(|(_, link)| link)
    };
    if !routes.iter().any(|route| route.default) {
        return None;
    }
    // A tunnel either leaves the old default route where it was, or has a route to its other end
    // through the old gateway.
    let below = best(|route| route.default).or_else(|| best(|route| route.gateway));
    Some(below.unwrap_or(Link::Unknown))
}

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default)]
struct Facts {
    name: String,
    /// `DEVTYPE` of its `uevent`.
    kind: String,
    /// Whether it has the files of a wireless one.
    wireless: bool,
    /// Whether it has the files of a program's tunnel.
    tun: bool,
    /// Hardware type (`ARPHRD_…`).
    hardware: u32,
}

fn interface(kernel: &Kernel, name: &str, depth: usize) -> Interface {
    let at = format!("sys/class/net/{name}");
    let files = kernel.list(&at);
    let has = |file: &str| files.iter().any(|known| known == file);
    let lowers = files.iter().filter_map(|file| file.strip_prefix("lower_"));
    let lowers = lowers.filter(|_| depth > 0);
    let lowers: Vec<_> = lowers
        .map(|lower| interface(kernel, lower, depth - 1))
        .collect();
    // A bridge, a bond and a VLAN are what is below them; if that differs, the modem counts.
    let mobile = Interface::Link(Link::Mobile);
    if let Some(first) = lowers.first() {
        return *lowers
            .iter()
            .find(|lower| **lower == mobile)
            .unwrap_or(first);
    }
    let read = |file: &str| kernel.read(&format!("{at}/{file}")).unwrap_or_default();
    let uevent = read("uevent");
    let kind = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="));
    judge(&Facts {
        name: name.to_owned(),
        kind: kind.unwrap_or_default().to_owned(),
        wireless: has("wireless") || has("phy80211"),
        tun: has("tun_flags"),
        hardware: read("type").parse().unwrap_or_default(),
    })
}

fn judge(facts: &Facts) -> Interface {
    const ETHER: u32 = 1;
    const PPP: u32 = 512;
    /// A modem's, newer and older.
    const RAWIP: [u32; 2] = [519, 530];
    /// Names of modems' interfaces whose drivers say nothing better; `v4-` is what translates for one.
    const MODEMS: [&str; 6] = ["wwan", "rmnet", "rev_rmnet", "ccmni", "ppp", "v4-"];

    let named = |prefix: &&str| facts.name.starts_with(*prefix);
    match facts.kind.as_str() {
        "wlan" => return Interface::Link(Link::Wifi),
        "wwan" => return Interface::Link(Link::Mobile),
        "bluetooth" => return Interface::Link(Link::Bluetooth),
        "wireguard" => return Interface::Tunnel,
        _ if facts.wireless => return Interface::Link(Link::Wifi),
        _ => {}
    }
    if MODEMS.iter().any(named) {
        return Interface::Link(Link::Mobile);
    }
    match facts.hardware {
        _ if facts.tun => Interface::Tunnel,
        ETHER => Interface::Link(Link::Ethernet),
        hardware if hardware == PPP || RAWIP.contains(&hardware) => Interface::Link(Link::Mobile),
        // Not even a file that says so.
        0 => Interface::Link(Link::Unknown),
        // No hardware, or packets in packets.
        _ => Interface::Tunnel,
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
eth0\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
short\t00000000
";

    const V6: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 rmnet0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn route(interface: &str, default: bool, gateway: bool, metric: u32) -> Route {
        Route {
            interface: interface.into(),
            default,
            gateway,
            metric,
        }
    }

    #[test]
    fn routes_in_use_are_read() {
        assert_eq!(
            parse_v4(V4),
            [
                route("wlan0", true, true, 600),
                route("tun0", true, false, 50),
                route("wlan0", false, false, 600),
                route("tun0", false, false, 0),
            ]
        );
        assert_eq!(
            parse_v6(V6),
            [
                route("wlan0", false, false, 0x100),
                route("rmnet0", true, true, 0x400),
            ]
        );
        assert_eq!(parse_v4("nonsense\n\u{1}\n"), []);
        assert_eq!(parse_v6("nonsense\n\u{1}\n"), []);
    }

    #[test]
    fn the_default_route_below_tunnels_tells_the_link() {
        let interface = |name: &str| match name {
            "eth0" => Interface::Link(Link::Ethernet),
            "wlan0" => Interface::Link(Link::Wifi),
            "rmnet0" => Interface::Link(Link::Mobile),
            "odd0" => Interface::Link(Link::Unknown),
            _ => Interface::Tunnel,
        };
        let wifi = route("wlan0", true, true, 600);
        let cable = route("eth0", true, true, 100);
        let modem = route("rmnet0", true, false, 700);
        let tunnel = route("tun0", true, false, 0);
        let cases: [(&[Route], &[Route], Link); 12] = [
            (&[], &[], Link::Offline),
            (&[route("wlan0", false, false, 0)], &[], Link::Offline),
            (from_ref(&wifi), &[], Link::Wifi),
            (&[], from_ref(&wifi), Link::Wifi),
            (&[wifi.clone(), cable.clone()], &[], Link::Ethernet),
            (&[modem.clone(), wifi.clone()], &[], Link::Wifi),
            (from_ref(&wifi), from_ref(&modem), Link::Mobile),
            (&[tunnel.clone(), wifi.clone()], &[], Link::Wifi),
            (&[tunnel.clone(), modem.clone()], &[], Link::Mobile),
            (
                &[tunnel.clone(), route("rmnet0", false, true, 0)],
                &[],
                Link::Mobile,
            ),
            (from_ref(&tunnel), from_ref(&tunnel), Link::Unknown),
            (&[route("odd0", true, true, 0)], &[], Link::Unknown),
        ];
        for (v4, v6, link) in cases {
            let families = [v4.to_vec(), v6.to_vec()];
            assert_eq!(decide(&families, interface), link, "{families:?}");
        }
    }

    #[test]
    fn an_interface_is_what_its_driver_says_or_what_it_is_called() {
        let link = Interface::Link;
        let cases = [
            // name, kind, wireless, tun, hardware
            (("wlan0", "wlan", true, false, 1), link(Link::Wifi)),
            (("wlp2s0", "", true, false, 1), link(Link::Wifi)),
            (("wwp0s20", "wwan", false, false, 1), link(Link::Mobile)),
            (("wwan0", "", false, false, 65534), link(Link::Mobile)),
            (("rmnet_data0", "", false, false, 530), link(Link::Mobile)),
            (("ccmni1", "", false, false, 1), link(Link::Mobile)),
            (("ppp0", "ppp", false, false, 512), link(Link::Mobile)),
            (("qmap0", "", false, false, 519), link(Link::Mobile)),
            (
                ("bnep0", "bluetooth", false, false, 1),
                link(Link::Bluetooth),
            ),
            (("eth0", "", false, false, 1), link(Link::Ethernet)),
            (("usb0", "gadget", false, false, 1), link(Link::Ethernet)),
            (("tap0", "", false, true, 1), Interface::Tunnel),
            (("tun0", "", false, true, 65534), Interface::Tunnel),
            (("wg0", "wireguard", false, false, 65534), Interface::Tunnel),
            (("sit0", "", false, false, 776), Interface::Tunnel),
            (("gone0", "", false, false, 0), link(Link::Unknown)),
        ];
        for ((name, kind, wireless, tun, hardware), expected) in cases {
            let facts = Facts {
                name: name.into(),
                kind: kind.into(),
                wireless,
                tun,
                hardware,
            };
            assert_eq!(judge(&facts), expected, "{facts:?}");
        }
    }
}

use system_image_bus::{Changes, Kernel, Link, Network, Source};
use system_image_testkit::{Bus, Mock};
use zbus::Connection;

use crate::{connect, kernel, run};

const MANAGER: &str = "org.freedesktop.NetworkManager";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const ACTIVE: &str = "org.freedesktop.NetworkManager.Connection.Active";

/// A kernel whose traffic goes over a modem.
fn modem(dir: &tempfile::TempDir) -> Kernel {
    let route = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                 rmnet0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n";
    let files = [
        ("proc/net/route", route),
        ("sys/class/net/rmnet0/type", "530\n"),
    ];
    kernel(dir, &files)
}

/// A kernel that knows no network.
fn bare() -> Kernel {
    Kernel::below("/nonexistent")
}

async fn link(connection: &Connection) -> Link {
    let network = Network::now(Some(connection), &bare()).await;
    assert_eq!(network.source, Source::Service, "{network:?}");
    network.link
}

/// Makes a wireless device with a connection, as the template does it, and returns their paths.
fn wifi(manager: &Mock<'_>) -> (String, String) {
    let device = "/org/freedesktop/NetworkManager/Devices/wifi";
    let point = "/org/freedesktop/NetworkManager/AccessPoint/home";
    let known = "/org/freedesktop/NetworkManager/Settings/home";
    manager.call("AddWiFiDevice", &["wifi", "wlan0", "100"]);
    let access = [
        "home",
        "Home",
        "00:23:F8:7E:12:BB",
        "2",
        "2425",
        "5400",
        "82",
        "256",
    ];
    manager.call("AddAccessPoint", &[&[device][..], &access].concat());
    manager.call("AddWiFiConnection", &[device, "home", "Home", "wpa-psk"]);
    let devices = format!("['{device}']");
    manager.call(
        "AddActiveConnection",
        &[&devices, known, point, "wifi", "2"],
    );
    let active = "/org/freedesktop/NetworkManager/ActiveConnection/wifi";
    (device.to_owned(), active.to_owned())
}

/// Makes a connection of a type that the template does not have, and returns its path.
fn active(manager: &Mock<'_>, name: &str, kind: &str, below: &str) -> String {
    let path = format!("/org/freedesktop/NetworkManager/ActiveConnection/{name}");
    let properties = format!(
        "{{'Type': <'{kind}'>, 'State': <uint32 2>, 'SpecificObject': <objectpath '{below}'>, \
         'Devices': <@ao []>}}"
    );
    manager.add(&path, ACTIVE, &properties);
    path
}

/// Makes the first one the one that leads to the world.
fn lead(manager: &Mock<'_>, connections: &[&str]) {
    let all = connections.join("', objectpath '");
    let first = connections[0];
    let all = format!("<[objectpath '{all}']>");
    manager.set(MANAGER, "ActiveConnections", &all);
    let first = format!("<objectpath '{first}'>");
    manager.set(MANAGER, "PrimaryConnection", &first);
}

#[test]
fn a_wireless_lan_is_free_until_it_is_metered() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        let manager = Mock::start(&bus, "networkmanager", "{}");
        let (device, wifi) = wifi(&manager);
        lead(&manager, &[&wifi]);
        let now = async || Network::now(Some(&connection), &bare()).await;
        let mut expected = Network {
            link: Link::Wifi,
            metered: None,
            source: Source::Service,
        };
        assert_eq!(now().await, expected);

        manager.set(MANAGER, "Metered", "<uint32 4>");
        expected.metered = Some(false);
        assert_eq!(now().await, expected);
        assert!(now().await.is_free());

        manager.set_at(&device, DEVICE, "Metered", "<uint32 1>");
        expected.metered = Some(true);
        assert_eq!(now().await, expected);
        assert!(!now().await.is_free());
    });
}

#[test]
fn a_modem_is_mobile_and_a_vpn_is_what_is_below_it() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        let manager = Mock::start(&bus, "networkmanager", "{}");
        let (_, wifi) = wifi(&manager);
        let gsm = active(&manager, "gsm", "gsm", "/");
        lead(&manager, &[&gsm, &wifi]);
        assert_eq!(link(&connection).await, Link::Mobile);

        let vpn = active(&manager, "vpn", "vpn", &gsm);
        lead(&manager, &[&vpn, &gsm, &wifi]);
        assert_eq!(link(&connection).await, Link::Mobile);

        let vpn = active(&manager, "vpn2", "vpn", &wifi);
        lead(&manager, &[&vpn, &gsm, &wifi]);
        assert_eq!(link(&connection).await, Link::Wifi);

        let wireguard = active(&manager, "wg", "wireguard", "/");
        lead(&manager, &[&wireguard, &gsm, &wifi]);
        assert_eq!(link(&connection).await, Link::Wifi);
        lead(&manager, &[&wireguard, &gsm]);
        assert_eq!(link(&connection).await, Link::Mobile);
    });
}

#[test]
fn the_kernel_tells_what_the_manager_does_not_know() {
    run(async {
        let (bus, dir) = (Bus::start(), tempfile::tempdir().unwrap());
        let (connection, kernel) = (connect(&bus).await, modem(&dir));
        let told = Network {
            link: Link::Mobile,
            metered: None,
            source: Source::Kernel,
        };
        assert_eq!(Network::now(None, &kernel).await, told);
        assert_eq!(Network::now(Some(&connection), &kernel).await, told);
        let nothing = Network::now(Some(&connection), &bare()).await;
        assert_eq!(
            (nothing.link, nothing.source),
            (Link::Offline, Source::Kernel)
        );

        // One that has not made the connection, and one that does not know what is below.
        let manager = Mock::start(&bus, "networkmanager", "{}");
        manager.set(MANAGER, "PrimaryConnection", "<objectpath '/'>");
        assert_eq!(Network::now(Some(&connection), &kernel).await, told);
        assert_eq!(link(&connection).await, Link::Offline);
        let tunnel = active(&manager, "tun", "tun", "/");
        lead(&manager, &[&tunnel]);
        assert_eq!(Network::now(Some(&connection), &kernel).await, told);
    });
}

#[test]
fn changes_are_told_also_when_the_manager_comes_and_goes() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        let mut changes = Changes::watch(&connection).await.unwrap();

        let manager = Mock::start(&bus, "networkmanager", "{}");
        changes.changed().await.unwrap();
        let (_, wifi) = wifi(&manager);
        lead(&manager, &[&wifi]);
        while link(&connection).await != Link::Wifi {
            changes.changed().await.unwrap();
        }
        // More than any queue holds, before anybody asks: the connection still serves calls.
        for _ in 0..40 {
            manager.call("SetGlobalConnectionState", &["60"]);
            manager.call("SetGlobalConnectionState", &["70"]);
        }
        assert_eq!(link(&connection).await, Link::Wifi);
        changes.changed().await.unwrap();

        drop(manager);
        while Network::now(Some(&connection), &bare()).await.source != Source::Kernel {
            changes.changed().await.unwrap();
        }
        drop(bus);
        while changes.changed().await.is_ok() {}
    });
}

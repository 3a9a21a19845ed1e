use system_image_bus::access::{Denied, Interaction, authorize};
use system_image_testkit::{Bus, Mock};
use zbus::Connection;

use crate::{connect, run};

const ACTION: &str = "com.example.change";
/// `daemon` and `nobody`, whom every system knows; the bus turns strangers away.
const USER: u32 = 1;
const OTHER: u32 = 65534;

async fn asked(connection: &Connection, caller: &str) -> Result<(), Denied> {
    authorize(connection, caller, ACTION, Interaction::Never).await
}

#[test]
fn root_may_and_a_stranger_may_not() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        if let Some(root) = bus.peer(0) {
            asked(&connection, root.name()).await.unwrap();
        }
        let gone = asked(&connection, ":1.4711").await.unwrap_err();
        assert!(matches!(gone, Denied::Nobody { .. }), "{gone:?}");
        let Some(peer) = bus.peer(USER) else { return };
        let denied = asked(&connection, peer.name()).await.unwrap_err();
        assert!(
            matches!(denied, Denied::Elsewhere { user: USER }),
            "{denied:?}"
        );
    });
}

#[test]
fn polkit_decides_where_it_is() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        let Some(peer) = bus.peer(USER) else { return };
        let polkit = Mock::start(&bus, "polkitd", "{}");
        let logind = Mock::start(&bus, "logind", "{}");
        logind.call("AddSession", &["c1", "seat0", "1", "daemon", "true"]);

        let denied = asked(&connection, peer.name()).await.unwrap_err();
        assert!(
            matches!(denied, Denied::Policy { user: USER, .. }),
            "{denied:?}"
        );
        polkit.call("SetAllowed", &["['com.example.other']"]);
        asked(&connection, peer.name()).await.unwrap_err();
        polkit.call("SetAllowed", &[&format!("['{ACTION}']")]);
        asked(&connection, peer.name()).await.unwrap();
        let allowed = authorize(&connection, peer.name(), ACTION, Interaction::Allowed).await;
        allowed.unwrap();

        let root = bus.peer(0).unwrap();
        polkit.call("SetAllowed", &["@as []"]);
        asked(&connection, root.name()).await.unwrap();
    });
}

#[test]
fn a_polkit_that_does_not_start_allows_nothing() {
    run(async {
        let bus = Bus::with_services(&[("org.freedesktop.PolicyKit1", "/bin/false")]);
        let connection = connect(&bus).await;
        let Some(peer) = bus.peer(USER) else { return };
        let logind = Mock::start(&bus, "logind", "{}");
        logind.call("AddSession", &["c1", "seat0", "1", "daemon", "true"]);
        let denied = asked(&connection, peer.name()).await.unwrap_err();
        assert!(matches!(denied, Denied::Unsaid { .. }), "{denied:?}");
    });
}

#[test]
fn the_person_at_the_screen_may_where_there_is_no_polkit() {
    run(async {
        const SESSION: &str = "/org/freedesktop/login1/session/c1";
        const INTERFACE: &str = "org.freedesktop.login1.Session";
        let bus = Bus::start();
        let connection = connect(&bus).await;
        let (Some(peer), Some(other)) = (bus.peer(USER), bus.peer(OTHER)) else {
            return;
        };
        let logind = Mock::start(&bus, "logind", "{}");
        asked(&connection, peer.name()).await.unwrap_err();
        logind.call("AddSession", &["c1", "seat0", "1", "daemon", "true"]);
        asked(&connection, peer.name()).await.unwrap();
        asked(&connection, other.name()).await.unwrap_err();

        for (name, not, so) in [
            ("Class", "<'greeter'>", "<'user'>"),
            ("Active", "<false>", "<true>"),
            ("Remote", "<true>", "<false>"),
        ] {
            logind.set_at(SESSION, INTERFACE, name, not);
            asked(&connection, peer.name()).await.unwrap_err();
            logind.set_at(SESSION, INTERFACE, name, so);
            asked(&connection, peer.name()).await.unwrap();
        }
    });
}

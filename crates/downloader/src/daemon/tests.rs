//! The core without a bus: what callers that are confined may do, which a bus says only where a kernel
//! with `AppArmor` runs (specification, section 12).

use std::collections::HashMap;

use camino::Utf8Path;
use serde::Serialize;
use system_image_bus::{Link, Network, Source};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zbus::message::Type;
use zbus::{DynamicType, Message, ObjectPath, Variant};

use super::core::{Core, Host};
use super::engine::Engine;
use crate::bus::outbox::Outbox;
use crate::job::caller::Caller;
use crate::job::names::Home;
use crate::records::Records;

const LABEL: &str = "com.example.app_app_1.0";
const MANAGER: &str = "com.lomiri.applications.DownloadManager";
const DOWNLOAD: &str = "com.lomiri.applications.Download";

/// What `getDownloadState` answers.
type State = (
    i32,
    String,
    String,
    String,
    HashMap<String, zbus::OwnedVariant>,
);

struct Bench {
    core: Core,
    sent: UnboundedReceiver<Message>,
}

impl Bench {
    fn new(place: &Utf8Path) -> Self {
        let (outgoing, sent) = unbounded_channel();
        let (news, _) = unbounded_channel();
        let host = Host {
            user: 7,
            privileged: false,
            apparmor: true,
            stoppable: false,
            home: Home::User {
                data: place.to_owned(),
                home: place.to_owned(),
            },
        };
        let network = Network {
            link: Link::Wifi,
            metered: None,
            source: Source::Service,
        };
        let records = Records::fleeting().unwrap();
        let engine = Engine::new(Vec::new()).unwrap();
        let core = Core::new(host, records, Outbox::new(outgoing), engine, news, network);
        Self { core, sent }
    }

    /// Calls, and returns the answer or the name of the error.
    fn call<B: Serialize + DynamicType>(
        &mut self,
        by: &Caller,
        (path, interface, method): (&str, &str, &str),
        body: &B,
    ) -> Result<Message, String> {
        let call = Message::method_call(path, method)
            .interface(interface)
            .build(body);
        self.core.answer(&call.unwrap(), by);
        loop {
            let message = self.sent.try_recv().expect("every call is answered");
            match message.message_type() {
                Type::MethodReturn => return Ok(message),
                Type::Error => {
                    let header = message.header();
                    return Err(header.error_name().unwrap().to_string());
                }
                Type::Signal | Type::MethodCall => {}
            }
        }
    }

    fn create(&mut self, by: &Caller, metadata: &[(&str, &str)]) -> String {
        let metadata = metadata
            .iter()
            .map(|(key, value)| (*key, Variant::from(*value)));
        let metadata: HashMap<&str, Variant<'_>> = metadata.collect();
        let headers: HashMap<&str, &str> = HashMap::new();
        let request = ("http://h/x", "", "", metadata, headers);
        let answer = self.call(by, ("/", MANAGER, "createDownload"), &(request,));
        let answer = answer.unwrap();
        let body = answer.body();
        let path: ObjectPath<'_> = body.deserialize().unwrap();
        path.to_string()
    }

    fn listed(&mut self, by: &Caller, owner: &str) -> Vec<String> {
        let all = ("/", MANAGER, "getAllDownloads");
        let answer = self.call(by, all, &(owner, false)).unwrap();
        let body = answer.body();
        let paths: Vec<ObjectPath<'_>> = body.deserialize().unwrap();
        paths.iter().map(ToString::to_string).collect()
    }
}

fn confined(label: &str) -> Caller {
    Caller::new(7, Some(label.as_bytes()), true)
}

#[test]
fn a_confined_caller_is_kept_to_its_own() {
    let place = tempfile::tempdir().unwrap();
    let place = Utf8Path::from_path(place.path()).unwrap();
    let mut bench = Bench::new(place);
    let (app, other) = (confined(LABEL), confined("other"));
    let free = Caller::new(7, None, true);
    let said = [
        ("app-id", "else"),
        ("local-path", "/etc/x"),
        ("click-package", "p"),
        ("title", "t"),
    ];
    let path = bench.create(&app, &said);
    let subtree = "/com/lomiri/applications/download/com_2eexample_2eapp_5fapp_5f1_2e0/";
    assert!(path.starts_with(subtree), "{path}");
    let own = bench.create(&free, &[("app-id", "mine")]);
    bench.create(&other, &[]);

    let download = bench.core.downloads().next().unwrap();
    assert_eq!(download.owner, LABEL);
    let file = place.join("lomiri-download-manager/com.example.app/Downloads/x");
    assert_eq!(download.files[0].destination, file);
    assert_eq!(download.metadata.text("click-package"), "");
    assert_eq!(download.metadata.text("title"), "t");

    assert_eq!(
        bench.listed(&app, "other"),
        std::slice::from_ref(&path),
        "the argument is replaced"
    );
    assert_eq!(bench.listed(&free, "").len(), 3);
    assert_eq!(bench.listed(&free, "mine"), std::slice::from_ref(&own));

    // Nor may it add later what it may not say first.
    let package = HashMap::from([("click-package", Variant::from("p"))]);
    let set = (&path[..], DOWNLOAD, "setMetadata");
    bench.call(&app, set, &package).unwrap();
    let download = bench.core.downloads().next().unwrap();
    assert_eq!(download.metadata.text("click-package"), "");

    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    for (by, path, want) in [
        (&app, &path, None),
        (&free, &path, None),
        (&other, &path, Some(unknown)),
        (&app, &own, Some(unknown)),
    ] {
        let answer = bench.call(by, (path, DOWNLOAD, "state"), &());
        assert_eq!(answer.err().as_deref(), want, "{by:?} {path}");
    }
    let state = ("/", MANAGER, "getDownloadState");
    let id = own.rsplit('/').next().unwrap();
    let answer = bench.call(&app, state, &id).unwrap();
    let ((number, ..),): (State,) = answer.body().deserialize().unwrap();
    assert_eq!(number, -1, "another's is not there");
}

#[test]
fn nobody_of_another_user_is_served() {
    let place = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(Utf8Path::from_path(place.path()).unwrap());
    let throttle = ("/", MANAGER, "defaultThrottle");
    for (user, served) in [(0, true), (7, true), (8, false)] {
        let answer = bench.call(&Caller::new(user, None, true), throttle, &());
        assert_eq!(answer.is_ok(), served, "{user}");
    }
}

#[test]
fn a_confined_caller_reads_no_file() {
    let place = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(Utf8Path::from_path(place.path()).unwrap());
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    let headers: HashMap<&str, &str> = HashMap::new();
    let request = ("file:///etc/passwd", "", "", none, headers);
    let create = ("/", MANAGER, "createDownload");
    let denied = bench.call(&confined(LABEL), create, &(request,)).err();
    assert_eq!(
        denied.as_deref(),
        Some("org.freedesktop.DBus.Error.AccessDenied")
    );
}

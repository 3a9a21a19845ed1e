mod daemon;
mod manager;

use std::collections::HashMap;

use camino::Utf8PathBuf;
use serde::Serialize;
use system_image_bus::download::{
    Cause, Control, DownloadError, Event, Failure, Family, Group, Record, present,
};
use system_image_formats::checksum::Sha256;
use system_image_testkit::Bus;
use zbus::Connection;
use zbus::{DynamicType, OwnedVariant};

use self::manager::{Call, Manager, PATH};
use crate::{connect, run};

/// What a group is made from.
type Body = (
    Vec<(String, String, String)>,
    String,
    bool,
    HashMap<String, OwnedVariant>,
    HashMap<String, String>,
);

fn records() -> [Record; 2] {
    let record = |name: &str, sha256| Record {
        url: format!("http://host/{name}"),
        destination: format!("/cache/{name}").into(),
        sha256,
    };
    let digest: Sha256 = "ab".repeat(32).parse().unwrap();
    [record("a", Some(digest)), record("a.asc", None)]
}

async fn group(connection: &Connection) -> Result<Group, DownloadError> {
    Group::create(connection, &records(), false, &[("User-Agent", "test")]).await
}

/// A group of a manager that does what the test tells it to.
async fn started(bus: &Bus, family: Family) -> (Manager, Group) {
    let manager = Manager::start(bus, family).await;
    let group = group(&connect(bus).await).await.unwrap();
    group.start().await.unwrap();
    (manager, group)
}

/// Sends signals and returns the events that come of them.
async fn events<B>(signals: &[(&str, B)]) -> Vec<Event>
where
    B: Serialize + DynamicType,
{
    let bus = Bus::start();
    let (manager, group) = started(&bus, Family::Canonical).await;
    for (name, body) in signals {
        manager.signal(name, body).await;
    }
    manager.signal("error", &"end").await;
    let mut events = Vec::new();
    while let Some(event) = group.next().await {
        events.push(event.unwrap());
    }
    events
}

#[test]
fn the_first_manager_that_is_there_or_can_be_started_is_taken() {
    run(async {
        let bus = Bus::start();
        let connection = connect(&bus).await;
        assert_eq!(present(&connection).await.unwrap(), None);
        let refused = group(&connection).await.unwrap_err();
        assert!(matches!(refused, DownloadError::Absent), "{refused:?}");

        let _lomiri = Manager::start(&bus, Family::Lomiri).await;
        assert_eq!(present(&connection).await.unwrap(), Some(Family::Lomiri));
        let canonical = Manager::start(&bus, Family::Canonical).await;
        assert_eq!(present(&connection).await.unwrap(), Some(Family::Canonical));
        group(&connection).await.unwrap();
        assert_eq!(canonical.calls().len(), 1);

        let services = [("com.lomiri.applications.Downloader", "/bin/false")];
        let bus = Bus::with_services(&services);
        let connection = connect(&bus).await;
        assert_eq!(present(&connection).await.unwrap(), Some(Family::Lomiri));
    });
}

#[test]
fn calls_have_the_names_and_signatures_of_the_family() {
    run(async {
        for family in Family::ALL {
            let bus = Bus::start();
            let (manager, group) = started(&bus, family).await;
            group.allow_mobile(true).await.unwrap();
            group.pause().await.unwrap();
            group.resume().await.unwrap();
            group.cancel().await.unwrap();
            let calls = manager.calls();

            let create = &calls[0];
            assert_eq!(create.path, "/");
            assert_eq!(create.interface, family.manager());
            assert_eq!(create.member, "createDownloadGroup");
            assert_eq!(create.signature, "a(sss)sba{sv}a{ss}");
            let body = create.message.body();
            let (files, algorithm, mobile, metadata, headers): Body = body.deserialize().unwrap();
            let files: Vec<_> = files.iter().map(|(a, b, c)| [&a[..], b, c]).collect();
            let digest = "ab".repeat(32);
            assert_eq!(
                files,
                [
                    ["http://host/a", "/cache/a", &digest],
                    ["http://host/a.asc", "/cache/a.asc", ""],
                ]
            );
            assert_eq!(
                (&algorithm[..], mobile, metadata.len()),
                ("sha256", false, 0)
            );
            assert_eq!(
                headers,
                HashMap::from([("User-Agent".into(), "test".into())])
            );

            let said = |call: &Call| format!("{}({})", call.member, call.signature);
            let said: Vec<_> = calls[1..].iter().map(said).collect();
            let expected = [
                "start()",
                "allowGSMDownload(b)",
                "pause()",
                "resume()",
                "cancel()",
            ];
            assert_eq!(said, expected);
            for call in &calls[1..] {
                assert_eq!(
                    (&call.path[..], &call.interface[..]),
                    (PATH, family.group())
                );
            }
        }
    });
}

#[test]
fn signals_are_events_in_their_order() {
    run(async {
        for family in Family::ALL {
            let bus = Bus::start();
            let (manager, group) = started(&bus, family).await;
            manager.signal("started", &true).await;
            manager.signal("progress", &(5_u64, 10_u64)).await;
            manager.signal("paused", &true).await;
            manager.signal("paused", &false).await;
            manager.signal("resumed", &true).await;
            manager.signal("processing", &"/cache/a").await;
            manager.signal("somethingNew", &7_u32).await;
            let all = 1_u64 << 40;
            manager.signal("progress", &(all, all)).await;
            manager
                .signal("finished", &vec!["/cache/a.asc", "/cache/a"])
                .await;
            for expected in [
                Event::Started,
                Event::Progress {
                    received: 5,
                    total: 10,
                },
                Event::Paused,
                Event::Unmoved(Control::Pause),
                Event::Resumed,
                Event::Processing("/cache/a".into()),
                Event::Progress {
                    received: all,
                    total: all,
                },
                Event::Finished(vec!["/cache/a.asc".into(), "/cache/a".into()]),
            ] {
                assert_eq!(group.next().await.unwrap().unwrap(), expected);
            }
            assert!(group.next().await.is_none());
        }
    });
}

#[test]
fn a_failure_has_the_cause_that_was_told_before_it() {
    run(async {
        let url = || "http://host/a".to_owned();
        let text = |text: &str| text.to_owned();
        let failed = |cause| {
            let text = text("end");
            vec![Event::Failed(Failure { text, cause })]
        };
        assert_eq!(events::<()>(&[]).await, failed(None));
        let http = Cause::Http {
            url: url(),
            status: 404,
            reason: text("Not Found"),
        };
        let signal = ("httpError", (url(), (404, "Not Found")));
        assert_eq!(events(&[signal]).await, failed(Some(http)));
        let network = Cause::Network {
            url: url(),
            code: 1,
            text: text("Connection refused"),
        };
        let signal = ("networkError", (url(), (1, "Connection refused")));
        assert_eq!(events(&[signal]).await, failed(Some(network)));
        let authentication = Cause::Authentication {
            url: url(),
            proxy: true,
            text: text("who?"),
        };
        let signal = ("authError", (url(), (1, "who?")));
        assert_eq!(events(&[signal]).await, failed(Some(authentication)));
        let process = Cause::Process {
            url: url(),
            name: text("ErrorInProcess"),
            status: 3,
            stderr: text("oh"),
        };
        let signal = ("processError", (url(), (0, "ErrorInProcess", 3, "", "oh")));
        assert_eq!(events(&[signal]).await, failed(Some(process)));
    });
}

#[test]
fn a_cancelled_group_is_over() {
    run(async {
        let bus = Bus::start();
        let (manager, group) = started(&bus, Family::Canonical).await;
        manager.signal("canceled", &false).await;
        manager.signal("canceled", &true).await;
        let unmoved = Event::Unmoved(Control::Cancel);
        assert_eq!(group.next().await.unwrap().unwrap(), unmoved);
        assert_eq!(group.next().await.unwrap().unwrap(), Event::Canceled);
        assert!(group.next().await.is_none());
    });
}

#[test]
fn what_the_manager_said_before_it_left_counts() {
    run(async {
        let bus = Bus::start();
        let (manager, group) = started(&bus, Family::Canonical).await;
        manager.signal("started", &true).await;
        manager.leave().await;
        assert_eq!(group.next().await.unwrap().unwrap(), Event::Started);
        let error = group.next().await.unwrap().unwrap_err();
        assert!(matches!(error, DownloadError::Left), "{error:?}");
        assert!(group.next().await.is_none());

        let (manager, group) = started(&bus, Family::Canonical).await;
        manager.signal("finished", &Vec::<&str>::new()).await;
        manager.leave().await;
        let finished = Event::Finished(Vec::<Utf8PathBuf>::new());
        assert_eq!(group.next().await.unwrap().unwrap(), finished);
        assert!(group.next().await.is_none());

        let (_manager, group) = started(&bus, Family::Canonical).await;
        drop(bus);
        let error = group.next().await.unwrap().unwrap_err();
        assert!(matches!(error, DownloadError::Left), "{error:?}");
    });
}

#[test]
fn a_signal_with_another_signature_is_an_error() {
    run(async {
        let bus = Bus::start();
        let (manager, group) = started(&bus, Family::Canonical).await;
        manager.signal("finished", &"/cache/a").await;
        let error = group.next().await.unwrap().unwrap_err();
        assert!(
            matches!(&error, DownloadError::Garbled { signal, .. } if signal == "finished"),
            "{error:?}"
        );
    });
}

#[test]
fn nobody_else_can_forge_a_signal() {
    run(async {
        let bus = Bus::start();
        let (manager, group) = started(&bus, Family::Canonical).await;
        let forger = connect(&bus).await;
        let interface = Family::Canonical.group();
        let body = vec!["/cache/a"];
        let sent = forger.emit_signal(None::<&str>, PATH, interface, "finished", &body);
        sent.await.unwrap();
        // The bus has passed it on, or not, when it answers the next call of the forger.
        present(&forger).await.unwrap();
        manager.signal("canceled", &true).await;
        assert_eq!(group.next().await.unwrap().unwrap(), Event::Canceled);
    });
}

#[test]
fn a_group_that_nobody_listens_to_holds_nothing_up() {
    run(async {
        let bus = Bus::start();
        let (manager, group) = started(&bus, Family::Canonical).await;
        // Far more than any queue of messages holds.
        for received in 0..1000_u64 {
            manager.signal("progress", &(received, 1000_u64)).await;
        }
        group.pause().await.unwrap();
        manager.signal("paused", &true).await;
        let mut events = Vec::new();
        while events.last() != Some(&Event::Paused) {
            events.push(group.next().await.unwrap().unwrap());
        }
        let last = Event::Progress {
            received: 999,
            total: 1000,
        };
        assert_eq!(events[events.len() - 2], last);
    });
}

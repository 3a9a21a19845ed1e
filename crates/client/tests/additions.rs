//! The outputs that the original does not have.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::fs;

use serde_json::{Value, json};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::{Device, Fault, Keys, Published};

use support::{prepared, run, succeed};

fn object(device: &Device, options: &[&str]) -> Value {
    let text = succeed(device, &[options, &["--json"]].concat());
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], 1, "{text}");
    value
}

fn keys_of(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn every_output_has_a_form_for_machines() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(6).full(7).delta(5, 7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    device.installed("stable", 5, "version_detail: ubuntu=1,tag=OTA-5\n");
    let info = object(&device, &["--info"]);
    assert_eq!(info["info"]["current_build_number"], 5);
    assert_eq!(
        info["info"]["version"],
        json!({"tag": "OTA-5", "ubuntu": "1"})
    );

    let channels = object(&device, &["--list-channels"]);
    let stable = json!({
        "name": "stable", "alias": null, "redirect": null, "hidden": false, "has_this_device": true,
    });
    assert_eq!(channels["channels"], json!([stable]));

    let check = object(&device, &["-n", "-p", "0"]);
    assert_eq!(check["check"]["result"], "update");
    assert_eq!(check["check"]["route"], "7");
    assert_eq!(
        keys_of(&check["check"]["update"]),
        [
            "descriptions",
            "files",
            "from",
            "images",
            "is_full",
            "phase",
            "size",
            "version",
            "version_detail"
        ]
    );
    let check = object(&device, &["-n", "-p", "0", "-c", "nowhere"]);
    assert_eq!(check["check"]["result"], "not-offered");

    let plan = object(&device, &["--plan", "-p", "0"]);
    let plan = &plan["check"]["plan"];
    assert_eq!(keys_of(plan), ["download", "files", "reboots", "room"]);
    assert_eq!(plan["reboots"], 1);
    assert!(plan["download"].as_u64().unwrap() > 0);
    assert_eq!(
        keys_of(&plan["room"][0]),
        ["available", "directory", "needed"]
    );

    let explained = object(&device, &["--explain", "-p", "0"]);
    let explained = &explained["check"]["explanation"];
    let verdicts: Vec<_> = (explained["candidates"].as_array().unwrap().iter())
        .map(|one| {
            (
                one["route"].as_str().unwrap(),
                one["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(verdicts[0], ("7", "chosen"));
    assert!(
        verdicts
            .iter()
            .any(|(_, verdict)| *verdict == "another one costs less")
    );
    assert_eq!(explained["images"].as_array().unwrap().len(), 3);
    assert_eq!(explained["phase"], 0);

    let update = object(&device, &["-p", "0"]);
    assert_eq!(update["update"]["version"], 7);
    let status = object(&device, &["--status"]);
    assert_eq!(
        keys_of(&status["status"]),
        ["applying", "checked", "installed", "prepared"]
    );
    let history = object(&device, &["--history"]);
    let events: Vec<_> = (history["history"].as_array().unwrap().iter())
        .map(|record| record["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["prepared", "applying"]);
}

#[test]
fn a_preflight_says_what_would_stop_an_update() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    fs::remove_file(device.archive_master()).unwrap();
    // A file where a directory should be.
    fs::write(device.path("cache"), "").unwrap();
    let ran = run(&device, &["--preflight"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    for what in ["trust root", "drop box"] {
        let line = ran
            .out
            .lines()
            .find(|line| line.contains(&format!(" {what}: ")));
        assert!(line.unwrap().starts_with("STOPS"), "{}", ran.out);
    }
    assert!(
        ran.out
            .contains("hint: put the publisher's archive-master keyring there")
    );
    let ran = run(&device, &["--preflight", "--json"]);
    assert_eq!(ran.code, Some(3));
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["preflight"]["ready"], false);
}

#[test]
fn the_phase_that_is_explained_is_the_one_that_was_used() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7).image(|image| {
        image.phased = serde_json::from_value(json!(20)).unwrap();
    });
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let text = succeed(&device, &["--explain", "-p", "21"]);
    assert!(
        text.contains("this device is at 21 % of rollouts\n"),
        "{text}"
    );
    assert!(
        text.contains("its last image is offered to 20 %, this device is at 21 %"),
        "{text}"
    );
    assert!(
        text.contains("take none: every candidate is withdrawn or not yet offered"),
        "{text}"
    );
    let text = succeed(&device, &["--explain", "-p", "20"]);
    assert!(text.contains("take 7\n"), "{text}");
}

#[test]
fn a_delta_that_stays_damaged_gives_way_to_a_full_image() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(6).delta(6, 7).full(7);
    // It costs more, so that the delta comes first.
    let tree = tree.image(|full| full.bootme = true);
    let tree = tree.damage("/pool/ubuntu-7.delta-6.tar.xz");
    let web = tree.serve();
    let device = Device::new(&keys).at_version(6).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    let names = prepared(&device).unwrap();
    assert!(
        names.contains(&"ubuntu-7.full.tar.xz".to_owned()),
        "{names:?}"
    );
    let asked = web.paths();
    let delta = asked.iter().filter(|path| path.ends_with("delta-6.tar.xz"));
    assert_eq!(
        delta.count(),
        2,
        "once more before it is given up: {asked:?}"
    );
    // Where there is no other way, it is an error that says so.
    let ran = run(&device, &["-p", "0", "-g", "--filter", "delta"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("HASH ERROR"), "{}", ran.err);
}

#[test]
fn an_expiring_keyring_and_a_server_that_is_away_are_no_reason_to_lose_what_is_known() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    assert!(device.kept(KeyringType::ImageSigning).exists());
    web.fails("/channels.json", Fault::Status("503 Service Unavailable"));
    assert_eq!(run(&device, &["-p", "0", "-g"]).code, Some(1));
    let status = object(&device, &["--status"]);
    assert_eq!(status["status"]["prepared"]["version"], 7);
    assert_eq!(status["status"]["checked"]["found"]["result"], "failed");
    assert_eq!(prepared(&device).unwrap().len(), 2);
}

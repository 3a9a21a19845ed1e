//! What an operator does to channels, devices and images, by the real program.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use support::{CHANNEL, DEVICE, Server, stderr, tar};

/// A server with two images, the second also as a delta.
fn two_images() -> Server {
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1"), ("usr/a", "aaa")]));
    server.publish(&server.archive("two", &[("etc/version", "22"), ("usr/a", "aaa")]));
    server
}

fn document(server: &Server, path: &str) -> Value {
    serde_json::from_slice(&fs::read(server.www().join(path)).unwrap()).unwrap()
}

fn channels(server: &Server) -> Value {
    document(server, "channels.json")
}

fn index(server: &Server, channel: &str) -> Value {
    document(server, &format!("{channel}/{DEVICE}/index.json"))
}

/// Type, version and base of each image.
fn identities(index: &Value) -> Vec<(String, u64, u64)> {
    let images = index["images"].as_array().unwrap();
    let of = |image: &Value| {
        (
            image["type"].as_str().unwrap().to_owned(),
            image["version"].as_u64().unwrap(),
            image["base"].as_u64().unwrap_or(0),
        )
    };
    images.iter().map(of).collect()
}

fn full(version: u64) -> (String, u64, u64) {
    ("full".to_owned(), version, 0)
}

fn delta(base: u64, version: u64) -> (String, u64, u64) {
    ("delta".to_owned(), version, base)
}

/// The `channel.ini` that an image's version file carries.
fn channel_ini(server: &Server, image: &Value) -> String {
    let files = image["files"].as_array().unwrap();
    let path = files.last().unwrap()["path"].as_str().unwrap();
    assert!(path.contains("/version-"), "{path}");
    let place = server.www().join(&path[1..]);
    let member = "system/etc/system-image/channel.ini";
    tar(&["-xJOf", place.to_str().unwrap(), member])
}

fn sound(server: &Server) {
    let report: Value = serde_json::from_str(&server.run(&["verify", "--deep", "--json"])).unwrap();
    assert_eq!(report["errors"], json!([]), "{report:#}");
}

fn refused(server: &Server, arguments: &[&str]) -> String {
    let before = server.snapshot();
    let output = server.command(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert_eq!(server.snapshot(), before, "{arguments:?} changed something");
    stderr(&output)
}

#[test]
fn an_alias_follows_with_version_files_of_its_own() {
    let server = two_images();
    server.run(&["channel", "alias", "devel", CHANNEL]);
    server.run(&["channel", "alias", "devel-again", "devel"]);
    let (theirs, ours) = (index(&server, CHANNEL), index(&server, "devel"));
    assert_eq!(identities(&theirs), identities(&ours));
    let image = &ours["images"][2];
    let ini = channel_ini(&server, image);
    assert!(
        ini.contains("channel: devel\n") && ini.contains(&format!("channel_target: {CHANNEL}\n")),
        "{ini}"
    );
    assert_eq!(image["files"][0], theirs["images"][2]["files"][0]);
    let again = index(&server, "devel-again");
    assert!(channel_ini(&server, &again["images"][0]).contains("channel_target: devel\n"));

    // Each change reaches it: an image, a phase, a withdrawal, a device.
    let three = server.archive("three", &[("etc/version", "333")]);
    server.run(&[
        "publish",
        CHANNEL,
        DEVICE,
        three.to_str().unwrap(),
        "--phased",
        "30",
    ]);
    let ours = index(&server, "devel-again");
    assert_eq!(identities(&ours).last().unwrap(), &delta(2, 3));
    assert_eq!(ours["images"][4]["phased-percentage"], 30);
    server.run(&["device", "add", CHANNEL, "bravo"]);
    assert!(channels(&server)["devel"]["devices"]["bravo"].is_object());
    server.run(&["device", "remove", CHANNEL, "bravo"]);
    assert!(channels(&server)["devel-again"]["devices"]["bravo"].is_null());
    sound(&server);
    assert!(
        refused(
            &server,
            &["publish", "devel", DEVICE, three.to_str().unwrap()]
        )
        .contains("alias of")
    );

    // Another target: new version files, under names that no reader knows with other content.
    server.run(&["channel", "create", "other"]);
    server.run(&["device", "add", "other", DEVICE]);
    server.run(&["promote", CHANNEL, "other", DEVICE]);
    let before: BTreeSet<_> = paths(&index(&server, "devel"));
    server.run(&["channel", "alias", "--change", "devel", "other"]);
    let ours = index(&server, "devel");
    assert_eq!(identities(&ours), [full(1)]);
    assert!(channel_ini(&server, &ours["images"][0]).contains("channel_target: other\n"));
    let after = paths(&ours);
    assert!(
        after
            .iter()
            .filter(|path| path.contains("/version-"))
            .all(|p| !before.contains(p))
    );
    sound(&server);
    assert!(
        refused(
            &server,
            &["channel", "alias", "--change", "devel", "devel-again"]
        )
        .contains("itself")
    );
    assert!(refused(&server, &["channel", "remove", "other"]).contains("followed by devel"));
}

fn paths(index: &Value) -> BTreeSet<String> {
    let images = index["images"].as_array().unwrap();
    let files = images
        .iter()
        .flat_map(|image| image["files"].as_array().unwrap());
    files
        .map(|file| file["path"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn redirects_are_copies_that_are_kept_up_to_date() {
    let server = two_images();
    server.run(&["channel", "redirect", "stable", CHANNEL]);
    server.run(&["channel", "create", "legacy"]);
    server.run(&["device", "redirect", "legacy", DEVICE, CHANNEL]);
    let now = channels(&server);
    let path = format!("/{CHANNEL}/{DEVICE}/index.json");
    assert_eq!(now["stable"]["devices"][DEVICE]["index"], path);
    assert_eq!(
        (&now["stable"]["hidden"], &now["stable"]["redirect"]),
        (&json!(true), &json!(CHANNEL))
    );
    assert_eq!(
        now["legacy"]["devices"][DEVICE],
        json!({"index": path, "redirect": CHANNEL})
    );
    assert!(refused(&server, &["device", "remove", "stable", DEVICE]).contains("follows"));

    server.run(&["device", "add", CHANNEL, "bravo"]);
    assert!(channels(&server)["stable"]["devices"]["bravo"].is_object());
    server.run(&["channel", "rename", CHANNEL, "24.10/stable"]);
    let now = channels(&server);
    let path = format!("/24.10/stable/{DEVICE}/index.json");
    assert_eq!(now["stable"]["devices"][DEVICE]["index"], path);
    assert_eq!(now["legacy"]["devices"][DEVICE]["index"], path);
    assert_eq!(now["stable"]["redirect"], "24.10/stable");
    // Readers of the old list still find what it names.
    server.assert_consistent();
    let moved = index(&server, "24.10/stable");
    assert!(
        paths(&moved)
            .iter()
            .all(|path| !path.starts_with("/24.04/"))
    );
    sound(&server);
    server.run(&["device", "remove", "24.10/stable", DEVICE]);
    let now = channels(&server);
    assert_eq!(now["legacy"]["devices"], json!({}));
    assert!(now["stable"]["devices"][DEVICE].is_null());
}

#[test]
fn a_promoted_image_shares_its_payloads() {
    let server = two_images();
    server.run(&["channel", "create", "rc"]);
    for device in [DEVICE, "bravo"] {
        server.run(&["device", "add", "rc", device]);
    }
    assert_eq!(
        server
            .run(&["promote", CHANNEL, "rc", DEVICE, "--offset", "1"])
            .trim(),
        "1"
    );
    let pool = |server: &Server| fs::read_dir(server.www().join("pool")).unwrap().count();
    let before = pool(&server);
    let promote = ["promote", CHANNEL, "rc", DEVICE, "-p", "5", "-t", "OTA-4"];
    assert_eq!(server.run(&promote).trim(), "2");
    assert_eq!(pool(&server), before, "the delta is in the pool already");
    let ours = index(&server, "rc");
    assert_eq!(identities(&ours), [full(1), full(2), delta(1, 2)]);
    let (image, theirs) = (&ours["images"][2], &index(&server, CHANNEL)["images"][2]);
    assert_eq!(image["files"][0], theirs["files"][0]);
    assert_eq!(image["phased-percentage"], 5);
    assert_eq!(image["version_detail"], "tag=OTA-4,version=2");
    assert!(channel_ini(&server, image).contains("channel: rc\n"));
    assert!(refused(&server, &promote).contains("already"));
    let list = server.place().join("list");
    fs::write(&list, format!("# all\n{CHANNEL} => rc\n")).unwrap();
    let said = server.run(&[
        "promote",
        "--list",
        list.to_str().unwrap(),
        "--numbered",
        "OTA-",
    ]);
    assert!(said.contains("has these files"), "{said}");
    let three = server.archive("three", &[("etc/version", "333")]);
    server.publish(&three);
    server.run(&[
        "promote",
        CHANNEL,
        "rc",
        "--all-devices",
        "--numbered",
        "OTA-",
        "-k",
    ]);
    assert_eq!(
        index(&server, "rc")["images"][3]["version_detail"],
        "tag=OTA-5,version=3"
    );
    assert!(refused(&server, &["promote", CHANNEL, CHANNEL, DEVICE]).contains("itself"));
    assert!(
        refused(&server, &["promote", CHANNEL, "rc", DEVICE, "-r", "9"]).contains("it has 3, 2, 1")
    );
    sound(&server);
}

#[test]
fn a_tag_carries_the_rollout_over() {
    let server = two_images();
    server.run(&["phase", "set", CHANNEL, DEVICE, "40"]);
    assert_eq!(
        server.run(&["tag", CHANNEL, DEVICE, "2", "OTA-1"]).trim(),
        "3"
    );
    let now = index(&server, CHANNEL);
    assert_eq!(identities(&now)[3..], [full(3), delta(2, 3)]);
    assert_eq!(
        (
            &now["images"][1]["phased-percentage"],
            &now["images"][3]["phased-percentage"]
        ),
        (&Value::Null, &json!(40))
    );
    assert_eq!(now["images"][4]["files"].as_array().unwrap().len(), 1);
    assert!(channel_ini(&server, &now["images"][4]).contains("tag=OTA-1,version=3"));
    assert!(refused(&server, &["tag", CHANNEL, DEVICE, "2", "OTA-2"]).contains("it is 3"));
    sound(&server);
}

#[test]
fn a_rollout_goes_in_steps_and_is_written_down() {
    let server = two_images();
    server.run(&["phase", "set", CHANNEL, DEVICE, "10", "--version", "2"]);
    server.run(&["phase", "step", "15"]);
    let share = |server: &Server| index(server, CHANNEL)["images"][2]["phased-percentage"].clone();
    assert_eq!(share(&server), 25);
    server.run(&["phase", "pause", CHANNEL, DEVICE]);
    assert_eq!(share(&server), 0);
    let output = server.command(&["phase", "step", "15"]).output().unwrap();
    assert!(!output.status.success(), "a paused one does not go on");
    server.run(&["phase", "resume", CHANNEL, DEVICE]);
    assert_eq!(share(&server), 25);
    assert!(
        refused(
            &server,
            &["phase", "set", CHANNEL, DEVICE, "10", "--version", "1"]
        )
        .contains("it is 2")
    );
    server.run(&["phase", "step", "100", "--channel", CHANNEL]);
    assert_eq!(share(&server), Value::Null, "100 takes the key away");
    let history: Value =
        serde_json::from_str(&server.run(&["phase", "history", "--json"])).unwrap();
    let steps: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .skip(2)
        .map(|e| (&e["from"], &e["to"]))
        .collect();
    let want =
        [(100, 10), (10, 25), (25, 0), (0, 25), (25, 100)].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(steps, want.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    assert!(history[2]["by"].is_string() && history[2]["time"].is_i64());
}

#[test]
fn a_withdrawn_image_leads_back_to_a_good_one() {
    let server = two_images();
    server.run(&["withdraw", CHANNEL, DEVICE, "2"]);
    let now = index(&server, CHANNEL);
    assert_eq!(
        identities(&now),
        [full(1), full(3), delta(1, 3), delta(2, 3)]
    );
    let (first, third) = (&now["images"][0], &now["images"][1]);
    assert_eq!(
        first["files"][0], third["files"][0],
        "it has the good one's payload"
    );
    // Who has the good one gets only a number; who has the bad one gets what differs.
    let counts: Vec<_> = [2, 3]
        .map(|at: usize| now["images"][at]["files"].as_array().unwrap().len())
        .into();
    assert_eq!(counts, [1, 2]);
    sound(&server);
    server.publish(&server.archive("four", &[("etc/version", "4444")]));
    server.run(&["withdraw", CHANNEL, DEVICE, "3"]);
    assert_eq!(
        identities(&index(&server, CHANNEL)),
        [full(1), full(4), delta(3, 4)]
    );
    assert!(refused(&server, &["withdraw", CHANNEL, DEVICE, "3"]).contains("no full image 3"));
    server.run(&["withdraw", CHANNEL, DEVICE, "1"]);
    assert!(refused(&server, &["withdraw", CHANNEL, DEVICE, "4"]).contains("only image"));
    assert!(refused(&server, &["image", "remove", CHANNEL, DEVICE, "4"]).contains("withdraw"));
    sound(&server);
}

#[test]
fn garbage_goes_after_its_grace_and_foreign_files_stay() {
    let server = two_images();
    server.run(&["channel", "create", "gone"]);
    server.run(&["device", "add", "gone", DEVICE]);
    server.run(&["promote", CHANNEL, "gone", DEVICE]);
    let config = server.root().join("etc/config.d");
    fs::create_dir_all(&config).unwrap();
    let kept = format!("[channel_{CHANNEL}]\nfullcount = 1\n");
    fs::write(config.join("stable.conf"), kept).unwrap();
    for (name, text) in [
        ("robots.txt", "x"),
        ("pool/notes.txt", "y"),
        ("docs/index.json", "{}"),
        ("half.tar.xz.part", "z"),
    ] {
        let place = server.www().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }
    let left_over = format!("rootfs-{}.tar.xz.new", "0a".repeat(32));
    fs::write(server.www().join("pool").join(&left_over), "half").unwrap();
    server.run(&["channel", "remove", "gone"]);
    let before = server.snapshot();
    let told: Value = serde_json::from_str(&server.run(&["gc", "--expire", "--json"])).unwrap();
    assert_eq!(told["removed"], json!([]));
    assert_eq!(identities(&index(&server, CHANNEL)), [full(2)]);
    assert!(
        before.keys().all(|name| server.www().join(name).exists()),
        "nothing goes at once"
    );
    let foreign = [
        "docs/index.json",
        "half.tar.xz.part",
        "pool/notes.txt",
        "robots.txt",
    ];
    assert_eq!(told["foreign"], json!(foreign));
    let told: Value = serde_json::from_str(&server.run(&["gc", "--grace", "0", "--json"])).unwrap();
    assert_eq!(told["waiting"], json!({}));
    // Exactly what is referenced, side files, `gpg/`, and what is not ours.
    let mut want: BTreeSet<String> = foreign.map(str::to_owned).into();
    want.extend(["channels.json", "channels.json.asc"].map(str::to_owned));
    want.extend(["", ".asc"].map(|end| format!("{CHANNEL}/{DEVICE}/index.json{end}")));
    for path in paths(&index(&server, CHANNEL)) {
        let stem = path[1..].strip_suffix(".tar.xz").unwrap();
        want.extend(
            [".tar.xz", ".tar.xz.asc", ".json", ".json.asc"].map(|end| format!("{stem}{end}")),
        );
    }
    let left: BTreeSet<_> = server
        .snapshot()
        .into_keys()
        .filter(|name| !name.starts_with("gpg/"))
        .collect();
    assert_eq!(left, want);
    assert!(!server.www().join("gone").exists());
    sound(&server);
}

#[test]
fn channels_are_rebuilt_from_the_indexes() {
    let server = two_images();
    server.run(&["channel", "alias", "devel/nested", CHANNEL]);
    let before = channels(&server);
    for name in ["channels.json", "channels.json.asc"] {
        fs::remove_file(server.www().join(name)).unwrap();
    }
    let output = server.command(&["rebuild"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "it asks for a confirmation");
    let said = server.run(&["rebuild", "--yes"]);
    assert!(
        said.contains(&format!(
            "found device `{DEVICE}` of channel `devel/nested`"
        )),
        "{said}"
    );
    assert_eq!(channels(&server), before);
    sound(&server);
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_would() {
    let server = two_images();
    let three = server.archive("three", &[("etc/version", "333")]);
    let three = three.to_str().unwrap();
    server.run(&["channel", "create", "rc"]);
    server.run(&["device", "add", "rc", DEVICE]);
    let before = server.snapshot();
    let history = fs::read(server.root().join("state/history.jsonl")).unwrap();
    for arguments in [
        &["channel", "create", "x"][..],
        &["channel", "alias", "x", CHANNEL],
        &["channel", "remove", CHANNEL],
        &["channel", "rename", CHANNEL, "x"],
        &["channel", "hide", CHANNEL],
        &["device", "add", CHANNEL, "x"],
        &["device", "remove", CHANNEL, DEVICE],
        &["publish", CHANNEL, DEVICE, three],
        &["promote", CHANNEL, "rc", DEVICE],
        &["tag", CHANNEL, DEVICE, "2", "x"],
        &["phase", "set", CHANNEL, DEVICE, "3"],
        &["withdraw", CHANNEL, DEVICE, "2"],
        &["image", "remove", CHANNEL, DEVICE, "1"],
        &["rebuild"],
    ] {
        let output = server.command(arguments).arg("--dry-run").output().unwrap();
        let told = stderr(&output);
        assert!(output.status.success(), "{arguments:?}: {told}");
        assert!(told.contains("  write  "), "{arguments:?}: {told}");
        assert_eq!(server.snapshot(), before, "{arguments:?}");
    }
    assert_eq!(
        fs::read(server.root().join("state/history.jsonl")).unwrap(),
        history
    );
}

#[test]
fn eight_writers_at_once_leave_a_tree_with_all_they_did() {
    let server = Server::new();
    let archives: Vec<_> = (0..8)
        .map(|n| server.archive(&format!("a{n}"), &[("etc/version", &"x".repeat(n + 1))]))
        .collect();
    let running: Vec<_> = (0..8)
        .map(|n| {
            let archive = archives[n].to_str().unwrap();
            let mut command = if n % 2 == 0 {
                server.command(&["publish", CHANNEL, DEVICE, archive, "--wait", "60"])
            } else {
                server.command(&["channel", "create", &format!("c{n}"), "--wait", "60"])
            };
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        index(&server, CHANNEL)["images"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|i| i["type"] == "full")
            .count(),
        4
    );
    assert_eq!(channels(&server).as_object().unwrap().len(), 5);
    server.assert_consistent();
    sound(&server);
}

#[test]
fn a_busy_tree_is_told_with_its_own_status() {
    let server = Server::new();
    let lock = fs::File::open(server.root().join("state/global.lock")).unwrap();
    lock.lock().unwrap();
    let output = server
        .command(&["channel", "create", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert!(stderr(&output).contains("--wait"), "{}", stderr(&output));
    // Looking needs no lock.
    server.run(&["status"]);
    server.run(&["channel", "list", "--json"]);
}

#[test]
fn hooks_are_told_of_each_change_and_cannot_stop_it() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::new();
    let hooks = server.root().join("etc/hooks");
    fs::create_dir_all(&hooks).unwrap();
    let told = server.place().join("told");
    for (name, mode, script) in [
        ("10-fails", 0o755, "exit 3".to_owned()),
        (
            "20-tells",
            0o755,
            format!("cat >> {0}; echo >> {0}", told.display()),
        ),
        (
            "30-is-none",
            0o644,
            format!("echo no >> {}", told.display()),
        ),
    ] {
        let place = hooks.join(name);
        fs::write(&place, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }
    let one = server.archive("one", &[("etc/version", "1")]);
    let output = server
        .command(&["publish", CHANNEL, DEVICE, one.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains("10-fails"), "{}", stderr(&output));
    server.run(&["phase", "set", CHANNEL, DEVICE, "3", "--dry-run"]);
    let told = fs::read_to_string(told).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    let event: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&event["action"], &event["version"], &event["device"]),
        (&json!("publish"), &json!(1), &json!(DEVICE))
    );
}

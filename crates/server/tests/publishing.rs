//! Publishing as an operator does it, checked with the tools that everybody has.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{CHANNEL, DEVICE, MTIME, Server, stderr, tar};

const ONE: [(&str, &str); 3] = [
    ("etc/version", "1"),
    ("usr/bin/a", "aaa"),
    ("usr/bin/b", "b"),
];
const TWO: [(&str, &str); 2] = [("etc/version", "22"), ("usr/bin/a", "aaa")];

#[test]
fn two_images_are_published_in_full_and_as_a_delta() {
    let server = Server::new();
    assert_eq!(server.publish(&server.archive("one", &ONE)), "1");
    assert_eq!(server.publish(&server.archive("two", &TWO)), "2");
    server.assert_consistent();

    let index = server.index();
    let images = index["images"].as_array().unwrap();
    let kinds: Vec<_> = images
        .iter()
        .map(|i| (&i["type"], &i["version"], &i["base"]))
        .collect();
    assert_eq!(
        format!("{kinds:?}"),
        format!(
            "{:?}",
            [
                (&"full".into(), &1.into(), &serde_json::Value::Null),
                (&"full".into(), &2.into(), &serde_json::Value::Null),
                (&"delta".into(), &2.into(), &1.into()),
            ] as [(&serde_json::Value, &serde_json::Value, &serde_json::Value); 3]
        )
    );
    let delta = images[2]["files"][0]["path"].as_str().unwrap();
    let members = tar(&["-tJf", server.www().join(&delta[1..]).to_str().unwrap()]);
    let members: Vec<_> = members.lines().collect();
    assert_eq!(members[0], "removed", "it must come first");
    assert!(members.contains(&"system/etc/version") && !members.contains(&"system/usr/bin/a"));
    let removed = tar(&[
        "-xJOf",
        server.www().join(&delta[1..]).to_str().unwrap(),
        "removed",
    ]);
    assert_eq!(removed, "system/usr/bin/b\n");
    // Both end with the version file, which says the number.
    let version = images[2]["files"][1]["path"].as_str().unwrap();
    assert_eq!(version, format!("/{CHANNEL}/{DEVICE}/version-2.tar.xz"));
    let place = server.www().join(&version[1..]);
    let place = place.to_str().unwrap();
    assert_eq!(tar(&["-xJOf", place, "system/etc/ubuntu-build"]), "2\n");
    assert_eq!(
        tar(&["-tJf", place]).lines().collect::<Vec<_>>(),
        [
            "system/etc/ubuntu-build",
            "system/etc/system-image/channel.ini",
            "system/etc/system-image/config.d/",
            "system/etc/system-image/config.d/00_default.ini",
            "system/etc/system-image/config.d/01_channel.ini",
        ]
    );
}

#[test]
fn publishing_the_same_files_again_changes_no_byte() {
    let server = Server::new();
    let archive = server.archive("one", &ONE);
    server.publish(&archive);
    let before = server.snapshot();
    assert_eq!(server.publish(&archive), "1");
    // The same content in another dress: pax headers, owner names, compressed.
    let dressed = server.place().join("dressed.tar.xz");
    let tree = server.place().join("one.tree");
    let pax = [
        "--format=pax",
        "--pax-option=comment=x",
        "--owner=root:0",
        "--group=root:0",
        MTIME,
        "-cJf",
    ];
    tar(&[
        &pax[..],
        &[dressed.to_str().unwrap(), "-C", tree.to_str().unwrap(), "."],
    ]
    .concat());
    assert_eq!(server.publish(&dressed), "1");
    server.run(&["init", "--key-type", "ed25519"]);
    assert_eq!(server.snapshot(), before);
}

#[test]
fn a_delta_may_lead_from_any_image() {
    let server = Server::new();
    for number in 1..=3 {
        let files = [("etc/version", ["1", "2", "3"][number - 1])];
        assert_eq!(
            server.publish(&server.archive(&number.to_string(), &files)),
            number.to_string()
        );
    }
    let archive = server.archive("four", &[("etc/version", "4")]);
    let archive = archive.to_str().unwrap();
    let version = server.run(&[
        "publish",
        CHANNEL,
        DEVICE,
        archive,
        "--version",
        "10",
        "--base",
        "1",
        "--base",
        "3",
        "--phased",
        "20",
        "--detail",
        "tag=OTA-1",
    ]);
    assert_eq!(version, "10\n");
    server.assert_consistent();
    let index = server.index();
    let newest: Vec<_> = index["images"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["version"] == 10)
        .collect();
    let bases: Vec<_> = newest.iter().map(|image| image["base"].as_u64()).collect();
    assert_eq!(bases, [None, Some(1), Some(3)]);
    assert!(newest.iter().all(|image| image["phased-percentage"] == 20));
    assert_eq!(newest[0]["version_detail"], "tag=OTA-1,version=10");
}

#[test]
fn several_files_are_one_image_and_only_what_changed_is_in_the_delta() {
    let server = Server::new();
    let device = server.place().join("device.tree/partitions");
    fs::create_dir_all(&device).unwrap();
    fs::write(device.join("boot.img"), "kernel").unwrap();
    let device_tar = server.place().join("device.tar");
    let tree = server.place().join("device.tree");
    tar(&[
        "-cf",
        device_tar.to_str().unwrap(),
        "-C",
        tree.to_str().unwrap(),
        "partitions",
    ]);
    let publish = |archive: &Path| {
        let files = [archive.to_str().unwrap(), device_tar.to_str().unwrap()];
        server.run(&[&["publish", CHANNEL, DEVICE], &files[..]].concat())
    };
    publish(&server.archive("one", &ONE));
    publish(&server.archive("two", &TWO));
    server.assert_consistent();
    let index = server.index();
    let names = |image: usize| -> Vec<String> {
        let files = index["images"][image]["files"].as_array().unwrap();
        let prefix = |f: &serde_json::Value| {
            let name = f["path"].as_str().unwrap().rsplit('/').next().unwrap();
            name.split('-').next().unwrap().to_owned()
        };
        files.iter().map(prefix).collect()
    };
    assert_eq!(names(0), ["rootfs", "device", "version"]);
    assert_eq!(names(2), ["rootfs", "version"]);
}

#[test]
fn a_file_of_which_only_the_time_changed_is_in_the_delta_unless_configured() {
    let members = |config: &str| -> Vec<String> {
        let server = Server::new();
        let place = server.root().join("etc/config");
        let text = fs::read_to_string(&place).unwrap();
        fs::write(place, text + config).unwrap();
        let archive = server.archive("one", &ONE);
        server.publish(&archive);
        let tree = server.place().join("one.tree");
        fs::write(tree.join("etc/version"), "2").unwrap();
        let [archive, tree] = [&archive, &tree].map(|path| path.to_str().unwrap());
        let pack = |how: &str, mtime: &str, what: &[&str]| {
            tar(&[&[how, mtime, "--file", archive, "-C", tree], what].concat());
        };
        pack("--create", MTIME, &["--exclude=./usr/bin/a", "."]);
        pack("--append", "--mtime=@1700000060", &["./usr/bin/a"]);
        server.publish(Path::new(archive));
        server.assert_consistent();
        let index = server.index();
        let delta = &index["images"][2]["files"][0]["path"];
        let delta = server.www().join(&delta.as_str().unwrap()[1..]);
        let members = tar(&["-tJf", delta.to_str().unwrap()]);
        members.lines().map(str::to_owned).collect()
    };
    let content = ["removed", "system/etc/", "system/etc/version"];
    let exact = [&content[..], &["system/usr/bin/", "system/usr/bin/a"]].concat();
    assert_eq!(members(""), exact);
    assert_eq!(members("delta_times = exact\n"), exact);
    assert_eq!(members("delta_times = content\n"), content);
}

#[test]
fn files_that_overlap_get_no_delta_that_would_be_wrong() {
    let server = Server::new();
    let overlay = server.archive("overlay.rootfs", &[("etc/version", "of the device")]);
    let publish = |archive: &Path| {
        let files = [archive.to_str().unwrap(), overlay.to_str().unwrap()];
        let output = server
            .command(&[&["publish", CHANNEL, DEVICE], &files[..]].concat())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    publish(&server.archive("one", &ONE));
    let said = publish(&server.archive("two", &TWO));
    assert!(said.contains("no delta from 1"), "{said}");
    assert_eq!(server.index()["images"].as_array().unwrap().len(), 2);
    server.assert_consistent();
}

#[test]
fn bad_input_is_one_clear_error_and_changes_nothing() {
    let server = Server::new();
    let good = server.archive("one", &ONE);
    let good = good.to_str().unwrap();
    server.run(&["publish", CHANNEL, DEVICE, good, "--version", "5"]);
    let path = |name: &str, content: &[u8]| {
        let path = server.place().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = server
        .place()
        .join("missing.tar")
        .to_str()
        .unwrap()
        .to_owned();
    let directory = server.place().to_str().unwrap().to_owned();
    let empty = path("empty.tar", &[0; 10240]);
    let garbage = path("garbage.tar", &vec![b'x'; 20_000]);
    let nothing = path("nothing.tar", b"");
    let whole = fs::read(good).unwrap();
    let cut = path("cut.tar", &whole[..whole.len() / 2 - 700]);
    let xz = path("cut.tar.xz", &[b"\xfd7zXZ\0" as &[u8], &[1; 50]].concat());
    let other = server.archive("other", &[("etc/x", "1"), ("partitions/boot.img", "2")]);
    let other = other.to_str().unwrap();
    let before = server.snapshot();
    let publish = ["publish", CHANNEL, DEVICE];
    for (arguments, want) in [
        (vec!["publish", "24.04/none", DEVICE, good], "24.04/none"),
        (vec!["publish", CHANNEL, "none", good], "none"),
        ([&publish[..], &[&missing]].concat(), "No such file"),
        ([&publish[..], &[&directory]].concat(), "directory"),
        ([&publish[..], &[&empty]].concat(), "empty"),
        ([&publish[..], &[&garbage]].concat(), "archive"),
        ([&publish[..], &[&nothing]].concat(), "ends too early"),
        ([&publish[..], &[&cut]].concat(), "ends too early"),
        ([&publish[..], &[&xz]].concat(), ".xz"),
        ([&publish[..], &[other]].concat(), "partitions"),
        (
            [&publish[..], &[good, "--version", "5"]].concat(),
            "not above",
        ),
        (
            [&publish[..], &[good, "--version", "65536"]].concat(),
            "65535",
        ),
        (
            [&publish[..], &[good, "--base", "4"]].concat(),
            "no full image 4",
        ),
        (
            [&publish[..], &[good, "--detail", "nothing"]].concat(),
            "KEY=VALUE",
        ),
        (
            [&publish[..], &[good, "--detail", "a=b,c"]].concat(),
            "version detail",
        ),
        (vec!["channel", "create", CHANNEL], "already"),
        (vec!["channel", "create", "pool/x"], "pool"),
        (vec!["channel", "create", "a/.b"], "dot"),
        (vec!["device", "add", CHANNEL, DEVICE], "already"),
        (vec!["device", "add", "none", DEVICE], "none"),
    ] {
        let output = server.command(&arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("error: ") && said.contains(want),
            "{arguments:?}: {said}"
        );
        assert_eq!(server.snapshot(), before, "{arguments:?}");
    }
    // What the command line's grammar refuses has another code.
    for arguments in [
        vec!["publish", "../x", DEVICE, good],
        vec!["publish", CHANNEL, "a/b", good],
        vec!["publish", CHANNEL, DEVICE],
        [&publish[..], &[good, "--version", "x"]].concat(),
        [&publish[..], &[good, "--phased", "101"]].concat(),
        vec!["nonsense"],
    ] {
        let output = server.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_directory_without_a_server_is_told_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_system-image-server"))
        .arg("--root")
        .arg(place.path())
        .args(["channel", "create", "a"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("etc/config") && said.contains("hint: ") && said.contains("init"),
        "{said}"
    );
}

#[test]
fn a_tampered_index_is_not_built_upon() {
    let server = Server::new();
    let archive = server.archive("one", &ONE);
    let index = server.index_path();
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("images", "imagez")).unwrap();
    let output = server
        .command(&["publish", CHANNEL, DEVICE, archive.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot be trusted"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_full_disk_is_told_and_the_next_run_converges() {
    let server = Server::new();
    let archive = server.archive("one", &ONE);
    let noise: String = (0..40_000u32)
        .map(|n| support::hex(&n.to_le_bytes()))
        .collect();
    let large = server.archive("large", &[("etc/version", "2"), ("usr/noise", &noise)]);
    server.publish(&archive);
    // The server's directory on a file system with too little room for the second image.
    let script = "set -e; mount -t tmpfs -o size=\"$3\" none \"$1.full\"; \
                  cp -a \"$1/.\" \"$1.full\"; shift 3; \"$@\"";
    let full = server.place().join("server.full");
    fs::create_dir(&full).unwrap();
    let room = |size: &str| {
        Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
            .arg(server.root())
            .args(["x", size])
            .arg("sh")
            .arg("-c")
            .arg(format!(
                "'{}' --root '{}' publish {CHANNEL} {DEVICE} '{}'; code=$?; \
                 cat '{}'; exit $code",
                env!("CARGO_BIN_EXE_system-image-server"),
                full.display(),
                large.display(),
                full.join("www")
                    .join(CHANNEL)
                    .join(DEVICE)
                    .join("index.json")
                    .display(),
            ))
            .output()
            .unwrap()
    };
    let output = room("3m");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: free some space"), "{said}");
    // The index that was there is still the one there.
    assert_eq!(output.stdout, fs::read(server.index_path()).unwrap());
    let output = room("64m");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_patch_stands_beside_the_delta_for_devices_that_have_memory_for_it() {
    let server = Server::new();
    let settings = server.root().join("etc/config.d");
    fs::create_dir_all(&settings).unwrap();
    let text = format!("[channel_{CHANNEL}]\npatch_memory = 24\n");
    fs::write(settings.join("patches.conf"), text).unwrap();
    let lines = |end: &str| {
        let lines = (0..20_000_u32).map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761)));
        lines.collect::<String>() + end
    };
    let (old, new) = (lines("old"), lines("new"));
    server.publish(&server.archive("one", &[("usr/text", &old), ("etc/version", "1")]));
    let two = server.archive("two", &[("usr/text", &new), ("etc/version", "2")]);
    server.publish(&two);

    let index = server.index();
    let file = &index["images"][2]["files"][0];
    let patch = &file["patch"];
    assert!(patch["size"].as_u64().unwrap() * 20 < file["size"].as_u64().unwrap());
    assert!(patch["memory"].as_u64().unwrap() <= 24 << 20);
    assert!(
        index["images"][2]["files"][1].get("patch").is_none(),
        "{index}"
    );
    let place = patch["path"].as_str().unwrap();
    let place = server.www().join(&place[1..]);
    assert!(
        server
            .run(&["patch", "info", place.to_str().unwrap()])
            .contains("files")
    );
    server.run(&["verify", "--deep"]);
    server.run(&["gc", "--grace", "0"]);
    assert!(place.exists());

    // Published again, from files that are there or made anew, it is the same.
    let bytes = fs::read(&place).unwrap();
    server.run(&["image", "remove", CHANNEL, DEVICE, "2", "--force"]);
    server.publish(&two);
    assert_eq!(server.index()["images"][2]["files"][0]["patch"], *patch);
    server.run(&["image", "remove", CHANNEL, DEVICE, "2", "--force"]);
    server.run(&["gc", "--grace", "0"]);
    assert!(!place.exists());
    server.publish(&two);
    assert_eq!(fs::read(&place).unwrap(), bytes);

    // One that went away is told.
    fs::remove_file(&place).unwrap();
    let output = server.command(&["verify"]).output().unwrap();
    assert!(!output.status.success());
}

//! Importing from every kind of source, by the real program and real tools.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![allow(clippy::too_many_lines, reason = "a test tells one story")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{CHANNEL, DEVICE, MTIME, Server, hex, stderr, tar};
use system_image_testkit::{Fault, Web};

/// A server whose channel is imported from these files, each with its source.
fn configured(files: &[(&str, &str)]) -> Server {
    let server = Server::new();
    configure(&server, CHANNEL, "", files);
    server
}

fn configure(server: &Server, channel: &str, more: &str, files: &[(&str, &str)]) {
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    let mut text = format!(
        "[channel_{channel}]\ntype = auto\n{more}files = {}\n",
        names.join(", ")
    );
    for (name, source) in files {
        text += &format!("file_{name} = {source}\n");
    }
    let place = server.root().join("etc/config.d");
    fs::create_dir_all(&place).unwrap();
    fs::write(
        place.join(format!("{}.conf", channel.replace('/', "-"))),
        text,
    )
    .unwrap();
}

/// What the importer says of each device.
fn import(server: &Server) -> Vec<Value> {
    let output = server.command(&["import", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", stderr(&output));
    });
    let told = told.as_array().unwrap().clone();
    let failed = told.iter().any(|one| one["outcome"] == "failed");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{told:?}");
    told
}

/// Imports for one device; what became of it.
fn outcome(server: &Server) -> Value {
    let told = import(server);
    assert_eq!(told.len(), 1);
    told[0].clone()
}

fn imported(server: &Server) -> u64 {
    let told = outcome(server);
    assert_eq!(told["outcome"], "new", "{told}");
    server.run(&["verify", "--deep"]);
    told["version"].as_u64().unwrap()
}

/// Importing again changes no byte.
fn settles(server: &Server) {
    let before = server.snapshot();
    assert_eq!(outcome(server)["outcome"], "unchanged");
    assert_eq!(server.snapshot(), before);
}

/// The files of the newest full image, by prefix.
fn files(server: &Server) -> BTreeMap<String, PathBuf> {
    let index = server.index();
    let images = index["images"].as_array().unwrap();
    let newest = images
        .iter()
        .rfind(|image| image["type"] == "full")
        .unwrap();
    let files = newest["files"].as_array().unwrap().iter();
    files
        .map(|file| {
            let path = &file["path"].as_str().unwrap()[1..];
            let name = path.rsplit('/').next().unwrap();
            let prefix = name.rsplit_once('-').unwrap().0;
            (prefix.to_owned(), server.www().join(path))
        })
        .collect()
}

fn detail(server: &Server) -> String {
    let index = server.index();
    let images = index["images"].as_array().unwrap();
    images.last().unwrap()["version_detail"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn list(archive: &Path) -> Vec<String> {
    let names = tar(&["-tJf", archive.to_str().unwrap()]);
    names.lines().map(str::to_owned).collect()
}

fn side(file: &Path) -> Value {
    let place = file.to_str().unwrap().replace(".tar.xz", ".json");
    serde_json::from_slice(&fs::read(place).unwrap()).unwrap()
}

fn gzipped(archive: &Path) -> PathBuf {
    let status = Command::new("gzip")
        .args(["-n", "-k", "-f"])
        .arg(archive)
        .status();
    assert!(status.unwrap().success());
    PathBuf::from(format!("{}.gz", archive.display()))
}

fn xz(archive: &Path) -> PathBuf {
    let status = Command::new("xz")
        .args(["-k", "-f", "-0"])
        .arg(archive)
        .status();
    assert!(status.unwrap().success());
    PathBuf::from(format!("{}.xz", archive.display()))
}

/// Puts a build of the cdimage family on the disk.
fn build(server: &Server, name: &str, file: &str, content: &Path) -> PathBuf {
    let place = server.place().join("cdimage").join(name);
    fs::create_dir_all(&place).unwrap();
    fs::copy(content, place.join(file)).unwrap();
    let sum = hex(&fs::read(content).unwrap());
    fs::write(place.join("SHA256SUMS"), format!("{sum} *{file}\n")).unwrap();
    place
}

#[test]
fn a_channel_of_the_originals_kind_gets_an_image_when_a_build_appears() {
    let server = Server::new();
    let cdimage = server.place().join("cdimage");
    let rootfs = format!(
        "cdimage-ubuntu;{};xenial,import=good;product=touch",
        cdimage.display()
    );
    configure(
        &server,
        CHANNEL,
        "versionbase = 7\nfullcount = 2\n",
        &[
            ("ubuntu", &rootfs),
            ("keyring", "keyring;archive-master"),
            ("version", "version"),
        ],
    );
    let told = outcome(&server);
    assert_eq!(
        (&told["outcome"], &told["file"]),
        (&json!("not-yet"), &json!("ubuntu"))
    );

    let file = "xenial-preinstalled-touch-armhf.tar.gz";
    let one = server.archive(
        "one",
        &[("etc/version", "1"), ("SWAP.swap", "x"), ("usr/lib/a", "x")],
    );
    let source = gzipped(&one);
    let place = build(&server, "20260101", file, &source);
    assert_eq!(
        outcome(&server)["outcome"],
        "not-yet",
        "it is not marked as good"
    );
    fs::write(place.join(".marked_good"), "").unwrap();
    build(&server, "pending", file, &source);
    assert_eq!(imported(&server), 7);
    settles(&server);

    let found = files(&server);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["keyring", "ubuntu", "version"]
    );
    // Named by the checksum of what it was made of.
    let hash = hex(&fs::read(&source).unwrap());
    assert!(found["ubuntu"].ends_with(format!("pool/ubuntu-{hash}.tar.xz")));
    let names = list(&found["ubuntu"]);
    for name in [
        "system/android/",
        "system/odm",
        "system/vendor",
        "system/userdata/",
        "system/etc/mtab",
        "system/lib/modules/",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
    assert!(!names.iter().any(|name| name.contains("SWAP")));
    let place = "system/usr/share/system-image/archive-master.tar.xz";
    assert_eq!(list(&found["keyring"]), [place, &format!("{place}.asc")]);
    let detail = detail(&server);
    let items: Vec<_> = detail.split(',').collect();
    assert!(items[0].starts_with("tag=20"), "{detail}");
    assert_eq!(
        items[1..],
        ["ubuntu=20260101", "keyring=archive-master", "version=7"]
    );
    let said = side(&found["ubuntu"]);
    assert_eq!(
        (&said["generator"], &said["version"], &said["series"]),
        (
            &json!("cdimage-ubuntu"),
            &json!("20260101"),
            &json!("xenial")
        )
    );
    assert_eq!(said["rootfs_checksum"], hash);

    // The next builds: a delta each, a second tag of the day, and only two full images stay.
    for (n, version) in [("20260102", "22"), ("20260103", "333")] {
        let next = gzipped(&server.archive(n, &[("etc/version", version), ("usr/lib/a", "x")]));
        let place = build(&server, n, file, &next);
        fs::write(place.join(".marked_good"), "").unwrap();
        imported(&server);
    }
    let index = server.index();
    let kinds: Vec<_> = index["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["version"].as_u64().unwrap(), i["base"].as_u64()))
        .collect();
    assert_eq!(kinds, [(8, None), (9, None), (9, Some(8))]);
    assert!(
        index["images"][1]["version_detail"]
            .as_str()
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .ends_with("/3")
    );
    let delta = index["images"][2]["files"].as_array().unwrap();
    let listed: Vec<_> = delta
        .iter()
        .map(|f| {
            f["path"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .split('-')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(
        listed,
        ["ubuntu", "keyring", "version"],
        "a keyring comes with every delta"
    );
    settles(&server);

    // What is damaged is an error, and no image.
    let four = gzipped(&server.archive("four", &[("etc/version", "4444")]));
    let place = build(&server, "20260104", file, &four);
    fs::write(place.join(".marked_good"), "").unwrap();
    fs::write(place.join(file), "not it").unwrap();
    let before = server.snapshot();
    let told = outcome(&server);
    assert!(
        told["error"].as_str().unwrap().contains("SHA256SUMS"),
        "{told}"
    );
    assert_eq!(server.snapshot(), before);
}

#[test]
fn a_file_behind_a_url_is_published_as_it_is_and_checked_on_offer() {
    let server = Server::new();
    let origin = server.place().join("origin");
    fs::create_dir_all(&origin).unwrap();
    let web = Web::of(camino_of(&origin));
    let base = format!("http://127.0.0.1:{}", web.port());
    let payload = xz(&payload(&server, "one", "1"));
    fs::copy(&payload, origin.join("device.tar.xz")).unwrap();
    fs::write(origin.join("version"), "v1\n").unwrap();
    let sum = hex(&fs::read(&payload).unwrap());
    fs::write(origin.join("sums"), format!("{sum}  device.tar.xz\n")).unwrap();
    let source = format!(
        "http;{base}/device.tar.xz?a=b=c;name=device,monitor={base}/version,checksum={base}/sums"
    );
    // This small web server knows no queries.
    let source = source.replace("?a=b=c", "");
    configure(
        &server,
        CHANNEL,
        "",
        &[("device", &source), ("version", "version")],
    );
    imported(&server);
    let found = files(&server);
    assert_eq!(hex(&fs::read(&found["device"]).unwrap()), sum);
    let name = hex(format!("{base}/device.tar.xz:v1").as_bytes());
    assert!(found["device"].ends_with(format!("pool/device-{name}.tar.xz")));
    assert_eq!(detail(&server), "device=v1,version=1");
    let before = web.asked().len();
    settles(&server);
    assert_eq!(
        web.paths()[before..],
        ["/version"],
        "the monitor says enough"
    );

    // A new version, first with a checksum that does not fit, then cut off, then whole.
    fs::copy(
        xz(&self::payload(&server, "two", "22")),
        origin.join("device.tar.xz"),
    )
    .unwrap();
    fs::write(origin.join("version"), "v2\n").unwrap();
    let before = server.snapshot();
    let told = outcome(&server);
    assert_eq!(told["outcome"], "failed", "{told}");
    assert_eq!(server.snapshot(), before);
    let sum = hex(&fs::read(origin.join("device.tar.xz")).unwrap());
    fs::write(origin.join("sums"), sum).unwrap();
    assert_eq!(imported(&server), 2);
    // What answers with two lines, or not at all, is an error.
    for text in ["a\nb\n", ""] {
        fs::write(origin.join("version"), text).unwrap();
        assert!(
            outcome(&server)["error"]
                .as_str()
                .unwrap()
                .contains("one line")
        );
    }
    web.fails("/version", Fault::Status("403 Forbidden"));
    assert_eq!(outcome(&server)["outcome"], "failed");
    // No archive at all.
    web.recovers();
    fs::write(origin.join("device.tar.xz"), "<html>").unwrap();
    fs::write(origin.join("sums"), hex(b"<html>")).unwrap();
    fs::write(origin.join("version"), "v3").unwrap();
    assert!(
        outcome(&server)["error"]
            .as_str()
            .unwrap()
            .contains("cannot be used")
    );
}

/// An archive of a payload.
fn payload(server: &Server, name: &str, version: &str) -> PathBuf {
    let tree = server.place().join(format!("{name}.payload"));
    fs::create_dir_all(tree.join("system/opt")).unwrap();
    fs::write(tree.join("system/opt/version"), version).unwrap();
    let archive = server.place().join(format!("{name}.payload.tar"));
    tar(&[
        "-c",
        MTIME,
        "--sort=name",
        "--format=gnu",
        "-f",
        archive.to_str().unwrap(),
        "-C",
        tree.to_str().unwrap(),
        "system",
    ]);
    archive
}

fn camino_of(path: &Path) -> &camino::Utf8Path {
    camino::Utf8Path::from_path(path).unwrap()
}

#[test]
fn another_servers_file_is_verified_as_a_device_would() {
    let theirs = Server::new();
    theirs.publish(&theirs.archive("one", &[("etc/version", "1")]));
    let web = Web::of(camino_of(&theirs.www()));
    let url = format!("http://127.0.0.1:{}", web.port());
    let source = format!("remote-system-image;{url};{CHANNEL};rootfs");
    let ours = configured(&[("rootfs", &source), ("version", "version")]);
    let told = outcome(&ours);
    assert!(
        told["error"]
            .as_str()
            .unwrap()
            .contains("archive-master keyring"),
        "{told}"
    );
    let anchors = ours.root().join("etc/remotes");
    fs::create_dir_all(&anchors).unwrap();
    let anchor = theirs
        .root()
        .join("secret/gpg/keyrings/archive-master.tar.xz");
    fs::copy(&anchor, anchors.join("127.0.0.1.tar.xz")).unwrap();
    imported(&ours);
    let found = files(&ours);
    let name = found["rootfs"].file_name().unwrap();
    let original = theirs.www().join("pool").join(name);
    assert_eq!(
        fs::read(&found["rootfs"]).unwrap(),
        fs::read(original).unwrap()
    );
    assert_eq!(side(&found["rootfs"])["generator"], "publish");
    assert!(detail(&ours).starts_with("sha256="), "{}", detail(&ours));
    settles(&ours);

    // Another server's keys, and a file that is not what its index says.
    theirs.publish(&theirs.archive("two", &[("etc/version", "22")]));
    let two = files(&theirs)["rootfs"].clone();
    let good = fs::read(&two).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&two, bad).unwrap();
    let before = ours.snapshot();
    assert_eq!(outcome(&ours)["outcome"], "failed");
    assert_eq!(ours.snapshot(), before);
    fs::write(&two, good).unwrap();
    assert_eq!(imported(&ours), 2);
    fs::copy(
        ours.root()
            .join("secret/gpg/keyrings/archive-master.tar.xz"),
        anchors.join("127.0.0.1.tar.xz"),
    )
    .unwrap();
    let told = outcome(&ours);
    assert!(
        told["error"]
            .as_str()
            .unwrap()
            .contains("cannot be trusted"),
        "{told}"
    );
}

#[test]
fn a_file_of_another_channel_is_shared() {
    let server = configured(&[
        ("rootfs", "system-image;daily;rootfs"),
        ("version", "version"),
    ]);
    server.run(&["channel", "create", "daily"]);
    server.run(&["device", "add", "daily", DEVICE]);
    assert_eq!(outcome(&server)["outcome"], "not-yet");
    let one = server.archive("one", &[("etc/version", "1")]);
    server.run(&["publish", "daily", DEVICE, one.to_str().unwrap()]);
    imported(&server);
    assert!(detail(&server).starts_with("sha256="));
    settles(&server);
    // A base in another channel is the image here that has its content.
    configure(
        &server,
        CHANNEL,
        "deltabase = daily\n",
        &[
            ("rootfs", "system-image;daily;rootfs"),
            ("version", "version"),
        ],
    );
    let two = server.archive("two", &[("etc/version", "22")]);
    server.run(&[
        "publish",
        "daily",
        DEVICE,
        two.to_str().unwrap(),
        "--version",
        "40",
    ]);
    let told = outcome(&server);
    assert_eq!(
        told["deltas"],
        json!([]),
        "daily's newest has no counterpart here yet"
    );
    let three = server.archive("three", &[("etc/version", "333")]);
    configure(
        &server,
        CHANNEL,
        "deltabase = daily\n",
        &[
            ("rootfs", &format!("tar;{}", three.display())),
            ("version", "version"),
        ],
    );
    assert_eq!(outcome(&server)["deltas"], json!([2]));
}

#[test]
fn directories_archives_and_oci_layouts_are_named_by_their_content() {
    let server = Server::new();
    let root = server.place().join("rootfs");
    for (path, content) in [
        ("etc/version", "1"),
        ("usr/bin/tool", "#!/bin/sh\n"),
        (
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\nVersion: 1\n",
        ),
    ] {
        let place = root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }
    fs::set_permissions(
        root.join("usr/bin/tool"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    configure(
        &server,
        CHANNEL,
        "",
        &[
            ("rootfs", &format!("directory;{}", root.display())),
            ("version", "version"),
        ],
    );
    imported(&server);
    settles(&server);
    let found = files(&server);
    assert_eq!(side(&found["rootfs"])["packages"], json!({"a": "1"}));
    let listed = tar(&["-tvJf", found["rootfs"].to_str().unwrap()]);
    assert!(listed.contains("-rwsr-xr-x 0/0"), "{listed}");

    fs::write(root.join("var/lib/dpkg/status"), "Package: a\nStatus: install ok installed\nVersion: 2\n\nPackage: b\nStatus: install ok installed\nVersion: 1\n").unwrap();
    assert_eq!(imported(&server), 2);
    let diff: Value =
        serde_json::from_str(&server.run(&["image", "diff", CHANNEL, DEVICE, "1", "2", "--json"]))
            .unwrap();
    assert_eq!(
        (&diff["added"], &diff["changed"]),
        (&json!({"b": "1"}), &json!({"a": ["1", "2"]}))
    );

    let layout = server.place().join("oci");
    oci(
        &layout,
        &[
            &[
                ("usr/lib/base", "base"),
                ("usr/lib/gone", "x"),
                ("opt/old/deep", "x"),
                ("etc/version", "1"),
                ("etc/linked", "L"),
            ],
            &[
                ("etc/version", "22"),
                ("usr/lib/.wh.gone", ""),
                ("opt/old/.wh..wh..opq", ""),
                ("opt/old/new", "n"),
            ],
        ],
    );
    configure(
        &server,
        CHANNEL,
        "",
        &[
            ("rootfs", &format!("oci;{};name=rootfs", layout.display())),
            ("version", "version"),
        ],
    );
    assert_eq!(imported(&server), 3);
    let found = files(&server);
    let names = list(&found["rootfs"]);
    let plain: Vec<_> = names
        .iter()
        .filter(|name| !name.ends_with('/'))
        .map(String::as_str)
        .collect();
    let mut sorted = plain.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "system/etc/linked",
            "system/etc/version",
            "system/opt/old/new",
            "system/usr/lib/base"
        ]
    );
    assert_eq!(
        tar(&[
            "-xJOf",
            found["rootfs"].to_str().unwrap(),
            "system/etc/version"
        ]),
        "22"
    );
    settles(&server);
}

/// An OCI image layout of these layers, the first one gzipped.
fn oci(layout: &Path, layers: &[&[(&str, &str)]]) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let sum = hex(bytes);
        fs::write(blobs.join(&sum), bytes).unwrap();
        format!("sha256:{sum}")
    };
    let mut described = Vec::new();
    for (at, files) in layers.iter().enumerate() {
        let work = tempfile::tempdir().unwrap();
        for (path, content) in *files {
            let place = work.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        let archive = work.path().with_extension("tar");
        tar(&[
            "-c",
            MTIME,
            "--sort=name",
            "-f",
            archive.to_str().unwrap(),
            "-C",
            work.path().to_str().unwrap(),
            ".",
        ]);
        let (kind, file) = if at == 0 {
            ("tar+gzip", gzipped(&archive))
        } else {
            ("tar", archive)
        };
        described.push(json!({"mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"), "digest": put(&fs::read(file).unwrap())}));
    }
    let manifest = put(json!({"layers": described}).to_string().as_bytes());
    let index = json!({"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest}]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn devices_are_imported_side_by_side_and_one_that_fails_stops_no_other() {
    let server = Server::new();
    for device in ["alpha", "bravo", "charlie"] {
        server.run(&["device", "add", CHANNEL, device]);
    }
    let one = server.archive("one", &[("etc/version", "1")]);
    let text = format!(
        "[channel_{CHANNEL}]\ntype = auto\nfiles = rootfs, extra,bravo, version\nfile_rootfs = tar;{}\n\
         file_extra,bravo = tar;{}/broken.tar\nfile_version = version\n",
        one.display(),
        server.place().display()
    );
    fs::write(server.place().join("broken.tar"), vec![b'x'; 2000]).unwrap();
    fs::create_dir_all(server.root().join("etc/config.d")).unwrap();
    fs::write(server.root().join("etc/config.d/a.conf"), text).unwrap();
    let told = import(&server);
    let outcomes: Vec<_> = told
        .iter()
        .map(|one| {
            (
                one["device"].as_str().unwrap(),
                one["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("alpha", "new"),
            ("bravo", "failed"),
            ("charlie", "new"),
            (DEVICE, "new")
        ]
    );
    server.run(&["verify", "--deep"]);
    let pool = fs::read_dir(server.www().join("pool")).unwrap().count();
    assert_eq!(pool, 4, "one payload for all");
}

#[test]
fn a_broken_configuration_is_told_and_nothing_happens() {
    let server = configured(&[("rootfs", "tar;x.tar")]);
    let said = server.run(&["config", "check"]);
    assert!(said.contains("is not `version`"), "{said}");
    for (text, want) in [
        ("[channel_x]\nfiles = a\n", "`file_a` is missing"),
        (
            "[channel_x]\nfiles = a\nfile_a = magic;x\n",
            "no generator `magic`",
        ),
        ("nonsense\n", "malformed"),
    ] {
        fs::write(server.root().join("etc/config.d/x.conf"), text).unwrap();
        let before = server.snapshot();
        for arguments in [
            &["config", "check"][..],
            &["import"],
            &["channel", "create", "y"],
        ] {
            let output = server.command(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert!(stderr(&output).contains(want), "{}", stderr(&output));
        }
        assert_eq!(server.snapshot(), before);
    }
}

#[test]
fn a_recipe_is_built_by_the_usual_tools() {
    // What stands for a package archive here: the tools' own arguments are what is tested, and
    // that what they write is published or refused.
    let server = Server::new();
    let recipe = server.place().join("recipe.toml");
    fs::write(server.place().join("motd"), "hello\n").unwrap();
    let text = "suite = \"bookworm\"\nname = \"base\"\nepoch = 1700000000\nvariant = \"custom\"\n\
                files = [{ from = \"motd\", to = \"/etc/motd\" }]\nclean = [\"/var/log/*\"]\n";
    fs::write(&recipe, text).unwrap();
    configure(
        &server,
        CHANNEL,
        "",
        &[
            ("base", &format!("bootstrap;{}", recipe.display())),
            ("version", "version"),
        ],
    );
    // A tool of that name that makes what it was asked for, or fails.
    let bin = server.place().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\nset -e\nroot=$(mktemp -d)\ntrap 'rm -rf \"$root\"' EXIT\n\
                  mkdir -p \"$root/usr/bin\" \"$root/etc\" \"$root/var/log\"\necho x > \"$root/var/log/a\"\n\
                  for a; do case $a in --customize-hook=*) sh -ec \"${a#--customize-hook=}\" x \"$root\";; esac; done\n\
                  [ ! -e \"$(dirname \"$0\")/fail\" ] || { echo 'E: no such suite' >&2; exit 25; }\n\
                  tar -c --sort=name --mtime=@$SOURCE_DATE_EPOCH -C \"$root\" .\n";
    let tool = bin.join("mmdebstrap");
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |server: &Server| {
        let output = server
            .command(&["import", "--json"])
            .env("PATH", &path)
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        told[0].clone()
    };
    assert_eq!(run(&server)["outcome"], "new");
    let found = files(&server);
    assert_eq!(
        tar(&["-xJOf", found["base"].to_str().unwrap(), "system/etc/motd"]),
        "hello\n"
    );
    assert!(
        !list(&found["base"])
            .iter()
            .any(|name| name == "system/var/log/a")
    );
    assert_eq!(
        run(&server)["outcome"],
        "unchanged",
        "it is the same to the byte"
    );
    fs::write(bin.join("fail"), "").unwrap();
    let before = server.snapshot();
    let told = run(&server);
    let error = told["error"].as_str().unwrap();
    assert!(
        error.contains("exit status: 25") && error.contains("E: no such suite"),
        "{error}"
    );
    assert_eq!(server.snapshot(), before);
}

#[test]
fn a_device_of_boot_recovery_and_system_images_is_one_tarball() {
    let server = Server::new();
    let place = server.place().join("cdimage/20260101");
    fs::create_dir_all(&place).unwrap();
    let content = server.place().join("android");
    fs::create_dir_all(&content).unwrap();
    fs::write(content.join("build.prop"), "x=1\n").unwrap();
    let name = |part: &str, arch: &str| format!("xenial-preinstalled-{part}-{arch}+{DEVICE}.img");
    let system = place.join(name("system", "armel"));
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-d"])
        .arg(&content)
        .arg(&system)
        .arg("32M")
        .status();
    assert!(made.unwrap().success());
    fs::write(place.join(name("boot", "armhf")), "boot").unwrap();
    fs::write(place.join(name("recovery", "armel")), "recovery").unwrap();
    let sums: Vec<_> = [
        ("boot", "armhf"),
        ("recovery", "armel"),
        ("system", "armel"),
    ]
    .iter()
    .map(|(part, arch)| {
        (
            hex(&fs::read(place.join(name(part, arch))).unwrap()),
            name(part, arch),
        )
    })
    .collect();
    let lines: String = sums
        .iter()
        .map(|(sum, name)| format!("{sum} *{name}\n"))
        .collect();
    fs::write(place.join("SHA256SUMS"), lines).unwrap();
    let source = format!(
        "cdimage-device;{};xenial",
        server.place().join("cdimage").display()
    );
    configure(
        &server,
        CHANNEL,
        "",
        &[("device", &source), ("version", "version")],
    );
    imported(&server);
    settles(&server);
    let found = files(&server);
    let hash = hex(format!("{}/{}/{}", sums[0].0, sums[1].0, sums[2].0).as_bytes());
    assert!(found["device"].ends_with(format!("pool/device-{hash}.tar.xz")));
    assert_eq!(
        list(&found["device"]),
        [
            "system/var/lib/lxc/android/system.img",
            "partitions/boot.img",
            "partitions/recovery.img"
        ]
    );
    let archive = found["device"].to_str().unwrap();
    assert_eq!(tar(&["-xJOf", archive, "partitions/boot.img"]), "boot");
    // Shrunk to what is in it, and still a file system with it.
    let work = server.place().join("unpacked");
    fs::create_dir_all(&work).unwrap();
    tar(&["-xJf", archive, "-C", work.to_str().unwrap()]);
    let shrunk = work.join("system/var/lib/lxc/android/system.img");
    assert!(fs::metadata(&shrunk).unwrap().len() < 16 << 20);
    let output = Command::new("debugfs")
        .args(["-R", "cat /build.prop"])
        .arg(&shrunk)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"x=1\n");
    assert_eq!(side(&found["device"])["recovery_checksum"], sums[1].0);
}

#[test]
fn a_root_file_system_behind_a_url_gets_its_links() {
    let server = Server::new();
    let origin = server.place().join("origin");
    fs::create_dir_all(&origin).unwrap();
    let web = Web::of(camino_of(&origin));
    let url = format!("http://127.0.0.1:{}/rootfs.tar.gz", web.port());
    let archive = server.archive("one", &[("etc/version", "1"), ("usr/lib/x", "x")]);
    // A merged `/usr`: what goes into `lib` goes where that leads.
    let tree = server.place().join("one.tree");
    std::os::unix::fs::symlink("usr/lib", tree.join("lib")).unwrap();
    tar(&[
        "-c",
        MTIME,
        "-f",
        archive.to_str().unwrap(),
        "-C",
        tree.to_str().unwrap(),
        ".",
    ]);
    fs::copy(gzipped(&archive), origin.join("rootfs.tar.gz")).unwrap();
    let source = format!("http-cdimage;{url};name=ubports");
    configure(
        &server,
        CHANNEL,
        "",
        &[("ubports", &source), ("version", "version")],
    );
    imported(&server);
    settles(&server);
    let found = files(&server);
    let sum = hex(&fs::read(origin.join("rootfs.tar.gz")).unwrap());
    assert!(found["ubports"].ends_with(format!("pool/ubports-{sum}.tar.xz")));
    let names = list(&found["ubports"]);
    for name in [
        "system/android/",
        "system/userdata/",
        "system/usr/lib/modules/",
        "system/lib",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
    assert!(!names.iter().any(|name| name.starts_with("system/lib/")));
    assert_eq!(side(&found["ubports"])["generator"], "cdimage-ubports");
}

#[test]
fn a_recovery_of_another_server_is_given_our_trust_root() {
    let theirs = Server::new();
    let ramdisk = {
        let work = tempfile::tempdir().unwrap();
        let place = work.path().join("etc/system-image");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("archive-master.tar.xz"), "theirs").unwrap();
        let script = "find . | sort | cpio -o -H newc --quiet | gzip -9n";
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(work.path())
            .output()
            .unwrap();
        output.stdout
    };
    let mut recovery = vec![0; 2048];
    recovery[..8].copy_from_slice(b"ANDROID!");
    for (at, value) in [
        (8, 4u32),
        (16, u32::try_from(ramdisk.len()).unwrap()),
        (36, 2048),
    ] {
        recovery[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    recovery.extend(b"kern");
    recovery.resize(4096, 0);
    recovery.extend(&ramdisk);
    let tree = theirs.place().join("device.payload");
    fs::create_dir_all(tree.join("partitions")).unwrap();
    fs::create_dir_all(tree.join("system/opt")).unwrap();
    fs::write(tree.join("partitions/recovery.img"), &recovery).unwrap();
    fs::write(tree.join("system/opt/x"), "x").unwrap();
    let archive = theirs.place().join("device.tar");
    tar(&[
        "-c",
        MTIME,
        "--format=gnu",
        "-f",
        archive.to_str().unwrap(),
        "-C",
        tree.to_str().unwrap(),
        "partitions",
        "system",
    ]);
    theirs.publish(&archive);
    let web = Web::of(camino_of(&theirs.www()));
    let url = format!("http://127.0.0.1:{}", web.port());
    let source = format!(
        "remote-system-image;{url};{CHANNEL};device;keyring=archive-master,trust=theirs.tar.xz"
    );
    let ours = configured(&[("device", &source), ("version", "version")]);
    fs::copy(
        theirs
            .root()
            .join("secret/gpg/keyrings/archive-master.tar.xz"),
        ours.root().join("theirs.tar.xz"),
    )
    .unwrap();
    imported(&ours);
    settles(&ours);
    let found = files(&ours);
    let work = ours.place().join("unpacked");
    fs::create_dir_all(&work).unwrap();
    tar(&[
        "-xJf",
        found["device"].to_str().unwrap(),
        "-C",
        work.to_str().unwrap(),
    ]);
    let image = fs::read(work.join("partitions/recovery.img")).unwrap();
    assert_eq!(image.len(), 0x90_0000);
    let len = u32::from_le_bytes(image[16..20].try_into().unwrap()) as usize;
    fs::write(work.join("ramdisk.gz"), &image[4096..4096 + len]).unwrap();
    let script =
        "zcat ramdisk.gz | cpio -i --quiet --to-stdout etc/system-image/archive-master.tar.xz";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(&work)
        .output()
        .unwrap();
    let keyring = fs::read(
        ours.root()
            .join("secret/gpg/keyrings/archive-master.tar.xz"),
    )
    .unwrap();
    assert_eq!(output.stdout, keyring);
}

#[test]
fn devices_that_share_a_source_cause_one_download_and_one_build() {
    let server = Server::new();
    for device in ["alpha", "bravo", "charlie", "delta"] {
        server.run(&["device", "add", CHANNEL, device]);
    }
    let origin = server.place().join("origin");
    fs::create_dir_all(&origin).unwrap();
    let web = Web::of(camino_of(&origin));
    fs::copy(xz(&payload(&server, "one", "1")), origin.join("a.tar.xz")).unwrap();
    let source = format!("http;http://127.0.0.1:{}/a.tar.xz;name=device", web.port());
    configure(
        &server,
        CHANNEL,
        "",
        &[("device", &source), ("version", "version")],
    );
    let output = server
        .command(&["import", "--json", "--jobs", "5"])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = told.as_array().unwrap();
    assert!(
        told.len() == 5 && told.iter().all(|one| one["outcome"] == "new"),
        "{told:?}"
    );
    assert_eq!(web.paths(), ["/a.tar.xz"]);
    server.run(&["verify", "--deep"]);
    // What fails for one fails for all, and is not tried by each.
    fs::write(origin.join("a.tar.xz"), "<html>").unwrap();
    let output = server
        .command(&["import", "--json", "--jobs", "5"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut devices = told.as_array().unwrap().iter();
    assert!(devices.all(|one| one["outcome"] == "failed"), "{told}");
    assert_eq!(web.paths().len(), 2);
}

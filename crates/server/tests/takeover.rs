//! A server of the original's is taken over as it stands: its configuration, its GnuPG homes, its
//! packed keyrings and its tree of plain files.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::{hex, stderr, tar};

/// What the original left behind.
struct Original {
    place: tempfile::TempDir,
}

impl Original {
    fn root(&self) -> PathBuf {
        self.place.path().join("srv")
    }

    fn home(&self, role: &str) -> PathBuf {
        self.root().join("secret/gpg/keys").join(role)
    }

    fn gpg(&self, role: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home(role))
            .args([
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        output.stdout
    }

    fn sign(&self, role: &str, file: &Path) {
        let target = format!("{}.asc", file.display());
        self.gpg(
            role,
            &[
                "--yes",
                "--armor",
                "--detach-sign",
                "-o",
                &target,
                file.to_str().unwrap(),
            ],
        );
    }

    /// A keyring tarball as the original packs it.
    fn pack(&self, role: &str, signer: &str) {
        let work = self.place.path().join(format!("pack-{role}"));
        fs::create_dir_all(&work).unwrap();
        fs::write(
            work.join("keyring.json"),
            json!({ "type": role }).to_string(),
        )
        .unwrap();
        fs::write(work.join("keyring.gpg"), self.gpg(role, &["--export"])).unwrap();
        let keyrings = self.root().join("secret/gpg/keyrings");
        fs::create_dir_all(&keyrings).unwrap();
        let archive = keyrings.join(format!("{role}.tar.xz"));
        tar(&[
            "-cJf",
            archive.to_str().unwrap(),
            "-C",
            work.to_str().unwrap(),
            "keyring.json",
            "keyring.gpg",
        ]);
        self.sign(signer, &archive);
        let published = self.root().join("www/gpg");
        fs::create_dir_all(&published).unwrap();
        for end in ["", ".asc"] {
            let name = format!("{role}.tar.xz{end}");
            fs::copy(keyrings.join(&name), published.join(&name)).unwrap();
        }
    }

    /// Publishes a file of the tree.
    fn put(&self, path: &str, bytes: &[u8]) {
        let place = self.root().join("www").join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, bytes).unwrap();
        self.sign("image-signing", &place);
    }

    fn new() -> Self {
        let original = Self {
            place: tempfile::tempdir().unwrap(),
        };
        let user = [
            ("archive-master", "Archive Master"),
            ("image-master", "Image Master"),
            ("image-signing", "Image Signing"),
        ];
        for (role, name) in user {
            let home = original.home(role);
            fs::create_dir_all(&home).unwrap();
            fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
            let id = format!("Acme {name} key <a@example.net>");
            original.gpg(
                role,
                &["--quick-generate-key", &id, "rsa2048", "sign", "never"],
            );
        }
        original.pack("archive-master", "archive-master");
        original.pack("image-master", "archive-master");
        original.pack("image-signing", "image-master");
        let root = original.root();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("state")).unwrap();
        fs::write(root.join("state/global.lock"), "").unwrap();
        let config = format!(
            "[global]\nbase_path = {0}\nchannels = daily\ngpg_key_path = {0}/secret/gpg/keys/\n\
             gpg_keyring_path = {0}/secret/gpg/keyrings/\npublish_path = {0}/www/\n\
             state_path = {0}/state/\npublic_fqdn = images.example.net\npublic_http_port = 80\n\
             public_https_port = 443\n\n[channel_daily]\ntype = manual\nfullcount = 5\n",
            root.display()
        );
        fs::write(root.join("etc/config"), config).unwrap();

        let work = original.place.path().join("rootfs");
        fs::create_dir_all(work.join("system/etc")).unwrap();
        fs::write(work.join("system/etc/version"), "1").unwrap();
        let payload = original.archive(&work);
        let name = format!("pool/ubuntu-{}.tar.xz", hex(b"source"));
        original.put(&name, &payload);
        original.put("daily/mako/version-1.tar.xz", &payload);
        let file = |order: u32, path: &str| json!({"checksum": hex(&payload), "order": order, "path": format!("/{path}"), "signature": format!("/{path}.asc"), "size": payload.len()});
        let image = json!({"description": "ubuntu=1,version=1", "files": [file(0, &name), file(1, "daily/mako/version-1.tar.xz")], "type": "full", "version": 1, "version_detail": "ubuntu=1,version=1"});
        let index =
            json!({"global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}, "images": [image]});
        let index = format!("{}\n", indented(&index));
        original.put("daily/mako/index.json", index.as_bytes());
        let channels = json!({"daily": {"devices": {"mako": {"index": "/daily/mako/index.json"}}}});
        original.put(
            "channels.json",
            format!("{}\n", indented(&channels)).as_bytes(),
        );
        original
    }

    fn archive(&self, tree: &Path) -> Vec<u8> {
        let place = self.place.path().join("payload.tar.xz");
        tar(&[
            "-cJf",
            place.to_str().unwrap(),
            "--format=gnu",
            "-C",
            tree.to_str().unwrap(),
            "system",
        ]);
        fs::read(place).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_system-image-server"))
            .arg("--root")
            .arg(self.root())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// As the original writes it.
fn indented(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, form);
    serde::Serialize::serialize(value, &mut writer).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_server_of_the_originals_goes_on_under_new_command() {
    let original = Original::new();
    let www = original.root().join("www");
    let before = fs::read(www.join("daily/mako/index.json")).unwrap();
    let channels = fs::read(www.join("channels.json")).unwrap();
    // Looking, checking and collecting garbage touch nothing.
    original.run(&["verify", "--deep"]);
    original.run(&["config", "check"]);
    original.run(&["gc", "--grace", "0"]);
    original.run(&["init"]);
    assert_eq!(fs::read(www.join("daily/mako/index.json")).unwrap(), before);
    assert_eq!(fs::read(www.join("channels.json")).unwrap(), channels);
    assert!(www.join("daily/mako/version-1.tar.xz").exists());

    // The next image is signed by the old key, and comes with a delta from the old one.
    let work = original.place.path().join("rootfs");
    fs::write(work.join("system/etc/version"), "22").unwrap();
    let next = original.place.path().join("ubuntu.tar.xz");
    fs::write(&next, original.archive(&work)).unwrap();
    assert_eq!(
        original
            .run(&["publish", "daily", "mako", next.to_str().unwrap()])
            .trim(),
        "2"
    );
    original.run(&["verify", "--deep"]);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(www.join("daily/mako/index.json")).unwrap()).unwrap();
    let images = index["images"].as_array().unwrap();
    assert_eq!((images.len(), &images[2]["base"]), (3, &json!(1)));
    let keyring = original.place.path().join("keyring.gpg");
    fs::write(&keyring, original.gpg("image-signing", &["--export"])).unwrap();
    let file = www.join("daily/mako/index.json");
    let output = Command::new("gpgv")
        .arg("--keyring")
        .arg(&keyring)
        .arg(format!("{}.asc", file.display()))
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let listed = original.run(&["keys", "list"]);
    assert_eq!(listed.matches("(gnupg").count(), 3, "{listed}");
}

//! Keys, keyrings and signatures exchanged with the installed GnuPG, both ways.

#![expect(clippy::unwrap_used, reason = "a test ends where GnuPG fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rand_core::OsRng;
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_trust::{
    Certificates, CertificatesError, KeyKind, Keyring, Now, SecretKey, SecretKeyError, Signers,
    Verified, VerifyError,
};
use tempfile::TempDir;

/// A key of its own time: made, used and looked at long ago, so that no test depends on today.
const MADE: &str = "20200101T000000";
const MADE_SECONDS: i64 = 1_577_836_800;
const DAY: i64 = 86_400;

/// A GnuPG home whose agent ends with it.
struct Gnupg {
    home: TempDir,
}

impl Gnupg {
    fn new() -> Self {
        Self {
            home: tempfile::Builder::new().prefix("gpg").tempdir().unwrap(),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("LC_ALL", "C")
            .arg("--homedir")
            .arg(self.home.path());
        command
    }

    /// Runs gpg with the clock standing at `time`; returns its output.
    fn at(&self, time: &str, args: &[&str]) -> Vec<u8> {
        let mut gpg = self.command("gpg");
        gpg.args([
            "--batch",
            "--yes",
            "--quiet",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
        ]);
        gpg.args([
            "--passphrase",
            "",
            "--faked-system-time",
            &format!("{time}!"),
        ]);
        let out = gpg.args(args).stdin(Stdio::null()).output().unwrap();
        let log = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "gpg {args:?}: {log}");
        out.stdout
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        self.at(MADE, args)
    }

    /// Answers the questions of `gpg --edit-key` and its like; returns the output.
    fn ask(&self, command: &[&str], answers: &str) -> Vec<u8> {
        let script = self.file("answers", answers.as_bytes());
        let mut gpg = self.command("gpg");
        gpg.args([
            "--no-tty",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ]);
        gpg.args([
            "--command-fd",
            "0",
            "--faked-system-time",
            &format!("{MADE}!"),
        ])
        .args(command);
        let out = gpg.stdin(fs::File::open(script).unwrap()).output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        out.stdout
    }

    fn generate(&self, name: &str, algorithm: &str, usage: &str, expire: &str) -> String {
        self.gpg(&["--quick-generate-key", name, algorithm, usage, expire]);
        self.fingerprints(name).remove(0)
    }

    /// Primary key first, then its subkeys.
    fn fingerprints(&self, name: &str) -> Vec<String> {
        let list = self.gpg(&["--with-colons", "--fingerprint", "--list-keys", name]);
        let list = String::from_utf8(list).unwrap();
        let lines = list.lines().filter(|line| line.starts_with("fpr:"));
        lines
            .map(|line| line.split(':').nth(9).unwrap().to_owned())
            .collect()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn sign(&self, key: &str, data: &[u8], options: &[&str]) -> Vec<u8> {
        let file = self.file("data", data);
        let base = ["--armor", "--output", "-", "--local-user", key];
        self.gpg(&[&base, options, &["--detach-sign", &file]].concat())
    }

    fn export(&self, key: &str) -> Certificates {
        Certificates::parse(&self.gpg(&["--export", key])).unwrap()
    }

    fn revoke(&self, key: &str) {
        let path = self
            .home
            .path()
            .join("openpgp-revocs.d")
            .join(format!("{key}.rev"));
        let certificate = fs::read_to_string(path)
            .unwrap()
            .replace(":-----BEGIN", "-----BEGIN");
        let file = self.file("revocation", certificate.as_bytes());
        self.gpg(&["--import", &file]);
    }

    /// What gpgv, which upgraders use, says of a signature.
    fn gpgv(&self, keyring: &Certificates, data: &[u8], signature: &str) -> bool {
        let keyring = self.file("keyring.gpg", &keyring.to_bytes());
        let (data, signature) = (
            self.file("data", data),
            self.file("sig", signature.as_bytes()),
        );
        let out = self
            .command("gpgv")
            .args(["--keyring", &keyring, &signature, &data])
            .output()
            .unwrap();
        out.status.success()
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "all"])
            .output();
    }
}

fn days(days: i64) -> Now {
    Now::from_clock(MADE_SECONDS + days * DAY)
}

/// `good`, or the variant of the error.
fn verdict<T>(result: Result<Verified<T>, VerifyError>) -> String {
    match result {
        Ok(_) => "good".to_owned(),
        Err(error) => {
            let text = format!("{error:?}");
            text.split([' ', '(']).next().unwrap().to_owned()
        }
    }
}

fn check(keyring: &Certificates, now: Now, data: &[u8], signature: &[u8]) -> String {
    verdict(Signers::new([keyring], now).verify(data, signature))
}

#[test]
fn signatures_by_every_common_kind_of_key_are_accepted() {
    let gnupg = Gnupg::new();
    for algorithm in ["rsa2048", "ed25519", "nistp256", "nistp384", "nistp521"] {
        let key = gnupg.generate(algorithm, algorithm, "sign", "never");
        let signature = gnupg.sign(&key, b"index", &[]);
        let keyring = gnupg.export(&key);
        let verified = Signers::new([&keyring], days(1))
            .verify(b"index", &signature)
            .unwrap();
        assert_eq!(verified.signer().unwrap().to_string(), key, "{algorithm}");
        assert_eq!(verified.signed_at(), Some(MADE_SECONDS));
        assert_eq!(
            check(&keyring, days(1), b"indey", &signature),
            "Bad",
            "{algorithm}"
        );
        assert_eq!(
            check(&keyring, days(1), b"index\n", &signature),
            "Bad",
            "{algorithm}"
        );
    }
}

#[test]
fn weak_keys_are_refused() {
    let gnupg = Gnupg::new();
    for algorithm in ["rsa1024", "dsa2048", "secp256k1"] {
        let key = gnupg.generate(algorithm, algorithm, "sign", "never");
        let signature = gnupg.sign(&key, b"index", &[]);
        let verdict = check(&gnupg.export(&key), days(1), b"index", &signature);
        assert_eq!(verdict, "WeakKey", "{algorithm}");
    }
}

#[test]
fn a_key_expires_when_gnupg_says_so_and_lives_on_when_extended() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("expiring", "ed25519", "sign", "20d");
    let signature = gnupg.sign(&key, b"index", &[]);
    let before = gnupg.export(&key);
    gnupg.at("20200110T000000", &["--quick-set-expire", &key, "100d"]);
    let after = gnupg.export(&key);
    gnupg.at("20200111T000000", &["--quick-set-expire", &key, "0"]);
    let never = gnupg.export(&key);

    for (keyring, day, want) in [
        (&before, 19, "good"),
        (&before, 20, "KeyExpired"),
        (&after, 20, "good"),
        (&after, 109, "KeyExpired"),
        (&never, 40_000, "good"),
    ] {
        assert_eq!(
            check(keyring, days(day), b"index", &signature),
            want,
            "day {day}"
        );
    }
    assert_eq!(
        check(&before, Now::UNKNOWN, b"index", &signature),
        "good",
        "without a clock"
    );
    // An old and a new copy in two keyrings: the new one counts.
    let both = Signers::new([&before, &after], days(30));
    assert_eq!(verdict(both.verify(b"index", &signature)), "good");
    let mut updated = before.clone();
    updated.update(after);
    assert_eq!(updated.len(), 1);
    assert_eq!(check(&updated, days(30), b"index", &signature), "good");
}

#[test]
fn a_signature_expires_when_gnupg_says_so() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("a", "ed25519", "sign", "never");
    let signature = gnupg.sign(&key, b"index", &["--default-sig-expire", "10d"]);
    let keyring = gnupg.export(&key);
    assert_eq!(check(&keyring, days(9), b"index", &signature), "good");
    assert_eq!(
        check(&keyring, days(10), b"index", &signature),
        "SignatureExpired"
    );
}

#[test]
fn a_revoked_key_is_refused_also_for_what_it_signed_before() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("revoked", "ed25519", "sign", "never");
    let signature = gnupg.sign(&key, b"index", &[]);
    let before = gnupg.export(&key);
    assert_eq!(check(&before, days(1), b"index", &signature), "good");
    gnupg.revoke(&key);
    let after = gnupg.export(&key);
    for now in [days(0), days(1), Now::UNKNOWN] {
        assert_eq!(check(&after, now, b"index", &signature), "Revoked");
    }
    let both = Signers::new([&before, &after], days(1));
    assert_eq!(
        verdict(both.verify(b"index", &signature)),
        "Revoked",
        "in any copy"
    );
}

#[test]
fn a_key_is_revoked_by_whom_it_named_for_that() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("revoked", "ed25519", "sign", "never");
    let revoker = gnupg.generate("revoker", "ed25519", "sign", "never");
    let signature = gnupg.sign(&key, b"index", &[]);
    gnupg.ask(
        &["--edit-key", &key],
        &format!("addrevoker\n{revoker}\ny\nsave\n"),
    );
    assert_eq!(
        check(&gnupg.export(&key), days(1), b"index", &signature),
        "good"
    );
    let revocation = gnupg.ask(&["--output", "-", "--desig-revoke", &key], "y\n0\n\ny\n");
    gnupg.gpg(&["--import", &gnupg.file("revocation", &revocation)]);
    // The keyring need not hold the revoker's key.
    assert_eq!(
        check(&gnupg.export(&key), days(1), b"index", &signature),
        "Revoked"
    );
}

#[test]
fn a_revoked_user_id_does_not_vouch_for_its_key() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("first", "ed25519", "sign", "never");
    let signature = gnupg.sign(&key, b"index", &[]);
    gnupg.gpg(&["--quick-add-uid", &key, "second"]);
    gnupg.gpg(&["--quick-revoke-uid", &key, "second"]);
    for (name, want) in [("first", "good"), ("second", "CannotSign")] {
        let filter = format!("keep-uid=uid =~ {name}");
        let keyring = gnupg.gpg(&["--export-filter", &filter, "--export", &key]);
        let keyring = Certificates::parse(&keyring).unwrap();
        assert_eq!(
            check(&keyring, days(1), b"index", &signature),
            want,
            "{name}"
        );
    }
}

#[test]
fn signing_subkeys_are_accepted_until_they_or_their_primary_key_end() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("with subkeys", "ed25519", "cert", "100d");
    gnupg.gpg(&["--quick-add-key", &key, "ed25519", "sign", "20d"]);
    gnupg.gpg(&["--quick-add-key", &key, "cv25519", "encr", "never"]);
    gnupg.gpg(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    let names = gnupg.fingerprints("with subkeys");
    let (short, long) = (&names[1], &names[3]);
    let by_short = gnupg.sign(&format!("{short}!"), b"index", &[]);
    let by_long = gnupg.sign(&format!("{long}!"), b"index", &[]);
    let keyring = gnupg.export(&key);

    let verified = Signers::new([&keyring], days(1))
        .verify(b"index", &by_short)
        .unwrap();
    assert_eq!(&verified.signer().unwrap().to_string(), short);
    assert_eq!(check(&keyring, days(20), b"index", &by_short), "KeyExpired");
    assert_eq!(check(&keyring, days(20), b"index", &by_long), "good");
    assert_eq!(check(&keyring, days(100), b"index", &by_long), "KeyExpired");

    // The blacklist names the primary key, and means its subkeys; or names a subkey only.
    let listed = Signers::new([&keyring], days(1)).refusing(&keyring);
    assert_eq!(verdict(listed.verify(b"index", &by_long)), "Blacklisted");
    let primary = gnupg.gpg(&[
        "--export-filter",
        "drop-subkey=key_algo -ge 0",
        "--export",
        &key,
    ]);
    let primary = Certificates::parse(&primary).unwrap();
    let listed = Signers::new([&keyring], days(1)).refusing(&primary);
    assert_eq!(verdict(listed.verify(b"index", &by_long)), "Blacklisted");

    gnupg.ask(&["--edit-key", &key], "key 1\nrevkey\ny\n0\n\ny\nsave\n");
    let keyring = gnupg.export(&key);
    assert_eq!(check(&keyring, days(1), b"index", &by_short), "Revoked");
    assert_eq!(check(&keyring, days(1), b"index", &by_long), "good");
    gnupg.revoke(&key);
    assert_eq!(
        check(&gnupg.export(&key), days(1), b"index", &by_long),
        "Revoked"
    );
}

#[test]
fn a_subkey_that_does_not_acknowledge_its_primary_key_is_refused() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("a", "ed25519", "cert", "never");
    gnupg.gpg(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    let signature = gnupg.sign("a", b"index", &[]);
    let bytes = gnupg.gpg(&["--export", &key]);
    // The acknowledgement is a signature of type 0x19 inside the binding; spoil its last byte,
    // which is in an area that the binding does not sign.
    let at = bytes
        .windows(4)
        .rposition(|w| w == [4, 0x19, 22, 10] || w == [4, 0x19, 22, 8]);
    let mut spoilt = bytes.clone();
    spoilt[at.unwrap() + 60] ^= 1;
    let good = Certificates::parse(&bytes).unwrap();
    let spoilt = Certificates::parse(&spoilt).unwrap();
    assert_eq!(check(&good, days(1), b"index", &signature), "good");
    assert_eq!(check(&spoilt, days(1), b"index", &signature), "CannotSign");
}

#[test]
fn a_key_without_a_valid_self_signature_cannot_sign() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("a", "ed25519", "sign", "never");
    let signature = gnupg.sign(&key, b"index", &[]);
    let mut bytes = gnupg.gpg(&["--export", &key]);
    *bytes.last_mut().unwrap() ^= 1;
    let spoilt = Certificates::parse(&bytes).unwrap();
    assert_eq!(check(&spoilt, days(1), b"index", &signature), "CannotSign");
}

#[test]
fn two_keys_may_sign_one_file() {
    let gnupg = Gnupg::new();
    let old = gnupg.generate("old", "ed25519", "sign", "20d");
    let new = gnupg.generate("new", "ed25519", "sign", "never");
    let signature = gnupg.sign(&old, b"index", &["--local-user", &new]);
    let (old_keyring, new_keyring) = (gnupg.export(&old), gnupg.export(&new));

    assert_eq!(check(&old_keyring, days(1), b"index", &signature), "good");
    assert_eq!(check(&new_keyring, days(1), b"index", &signature), "good");
    assert_eq!(
        check(&old_keyring, days(20), b"index", &signature),
        "KeyExpired"
    );
    let both = |now| Signers::new([&old_keyring, &new_keyring], now);
    assert_eq!(verdict(both(days(1)).verify(b"index", &signature)), "good");
    assert_eq!(verdict(both(days(20)).verify(b"index", &signature)), "good");
    let listed = both(days(1)).refusing(&old_keyring);
    assert_eq!(verdict(listed.verify(b"index", &signature)), "Blacklisted");
    gnupg.revoke(&old);
    let revoked = gnupg.export(&old);
    let revoked = Signers::new([&revoked, &new_keyring], days(1));
    assert_eq!(verdict(revoked.verify(b"index", &signature)), "Revoked");
}

#[test]
fn only_plain_detached_signatures_are_accepted() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("a", "rsa2048", "sign", "never");
    let keyring = gnupg.export(&key);
    let signed = |options: &[&str]| {
        check(
            &keyring,
            days(1),
            b"index",
            &gnupg.sign(&key, b"index", options),
        )
    };

    assert_eq!(signed(&["--digest-algo", "SHA256"]), "good");
    assert_eq!(signed(&["--digest-algo", "SHA1"]), "WeakDigest");
    assert_eq!(signed(&["--textmode"]), "NotBinary");
    assert_eq!(signed(&["--no-armor"]), "Form");
    assert_eq!(signed(&["--sig-notation", "a@example.org=b"]), "good");
    assert_eq!(
        signed(&["--sig-notation", "!a@example.org=b"]),
        "NotUnderstood"
    );

    let file = gnupg.file("data", b"index");
    for how in ["--sign", "--clear-sign"] {
        let message = gnupg.gpg(&["--armor", "--output", "-", how, &file]);
        assert_eq!(
            check(&keyring, days(1), b"index", &message),
            "Form",
            "{how}"
        );
    }
    let once = gnupg.sign(&key, b"index", &[]);
    let twice = [&once[..], &once[..]].concat();
    assert_eq!(check(&keyring, days(1), b"index", &twice), "Form");
    let stranger = gnupg.generate("b", "ed25519", "sign", "never");
    assert_eq!(
        check(&gnupg.export(&stranger), days(1), b"index", &once),
        "UnknownKey"
    );
    assert_eq!(
        check(&Certificates::default(), days(1), b"index", &once),
        "UnknownKey"
    );
}

#[test]
fn gnupgs_own_keyring_with_its_trust_packets_is_read_and_its_keybox_is_named() {
    let gnupg = Gnupg::new();
    // GnuPG keeps to the old form where a home has it.
    let path = gnupg.file("pubring.gpg", b"");
    let a = gnupg.generate("a", "ed25519", "sign", "never");
    let b = gnupg.generate("b", "ed25519", "sign", "never");
    let bytes = fs::read(path).unwrap();
    let listing = String::from_utf8(gnupg.gpg(&["--list-packets", &gnupg.file("copy", &bytes)]));
    assert!(
        listing.unwrap().contains(":trust packet:"),
        "the point of this test"
    );

    let keyring = Certificates::parse(&bytes).unwrap();
    let names: Vec<_> = keyring
        .fingerprints()
        .map(|name| name.to_string())
        .collect();
    assert_eq!(names, [a.clone(), b.clone()]);
    assert_eq!(
        keyring.to_bytes(),
        gnupg.gpg(&["--export"]),
        "what GnuPG exports, and no trust"
    );
    for key in [a, b] {
        let signature = gnupg.sign(&key, b"index", &[]);
        assert_eq!(check(&keyring, days(1), b"index", &signature), "good");
        let text = String::from_utf8(signature).unwrap();
        assert!(
            gnupg.gpgv(&keyring, b"index", &text),
            "gpgv reads what we wrote"
        );
    }

    let newer = Gnupg::new();
    newer.generate("a", "ed25519", "sign", "never");
    let keybox = fs::read(newer.home.path().join("pubring.kbx")).unwrap();
    assert_eq!(
        Certificates::parse(&keybox).unwrap_err(),
        CertificatesError::Keybox
    );
    let secret = newer.gpg(&["--export-secret-keys"]);
    assert_eq!(
        Certificates::parse(&secret).unwrap_err(),
        CertificatesError::SecretKey
    );
}

#[test]
fn gnupg_accepts_our_keys_keyrings_and_signatures() {
    let gnupg = Gnupg::new();
    let made = MADE_SECONDS;
    let user = "Test Image Signing key <test@example.org>";
    for kind in [KeyKind::Ed25519, KeyKind::Rsa2048] {
        let key = SecretKey::generate(&mut OsRng, kind, user, made, Some(63_072_000)).unwrap();
        let signature = key.sign(&b"index"[..], made + 60).unwrap();
        assert!(
            gnupg.gpgv(key.certificate(), b"index", &signature),
            "{kind:?}"
        );
        assert!(
            !gnupg.gpgv(key.certificate(), b"indey", &signature),
            "{kind:?}"
        );

        let file = gnupg.file("public", &key.certificate().to_bytes());
        let shown = gnupg.gpg(&["--with-colons", "--show-keys", &file]);
        let shown = String::from_utf8(shown).unwrap();
        let public: Vec<_> = shown.lines().next().unwrap().split(':').collect();
        let end = (made + 63_072_000).to_string();
        assert_eq!(
            (public[5], public[6]),
            (made.to_string().as_str(), end.as_str()),
            "{shown}"
        );
        assert_eq!(public[11], "scSC", "for signing and certifying: {shown}");
        assert!(shown.contains(user), "{shown}");

        let secret = gnupg.file("secret", key.to_armored().as_bytes());
        gnupg.gpg(&["--import", &secret]);
        let theirs = gnupg.sign(&key.fingerprint().to_string(), b"theirs", &[]);
        assert_eq!(
            check(key.certificate(), days(1), b"theirs", &theirs),
            "good",
            "{kind:?}"
        );
    }
}

#[test]
fn our_signature_packets_are_what_the_specification_says() {
    let gnupg = Gnupg::new();
    let key = SecretKey::generate(&mut OsRng, KeyKind::Rsa2048, "A", MADE_SECONDS, None).unwrap();
    let signature = key.sign(&b"index"[..], MADE_SECONDS).unwrap();
    let file = gnupg.file("sig", signature.as_bytes());
    let listing = String::from_utf8(gnupg.gpg(&["--list-packets", &file])).unwrap();
    for line in [
        "version 4, created 1577836800, md5len 0, sigclass 0x00",
        "digest algo 8",
        "hashed subpkt 33 len 21 (issuer fpr v4",
        "hashed subpkt 2 len 4 (sig created 2020-01-01)",
        "\tsubpkt 16 len 8 (issuer key ID",
    ] {
        assert!(listing.contains(line), "{line} in {listing}");
    }
}

#[test]
fn a_secret_key_of_gnupg_signs_here_also_with_a_subkey() {
    let gnupg = Gnupg::new();
    let plain = gnupg.generate("plain", "ed25519", "sign", "never");
    let certifier = gnupg.generate("with subkey", "ed25519", "cert", "never");
    gnupg.gpg(&["--quick-add-key", &certifier, "cv25519", "encr", "never"]);
    gnupg.gpg(&["--quick-add-key", &certifier, "ed25519", "sign", "never"]);
    let subkey = gnupg.fingerprints("with subkey").pop().unwrap();
    for (name, signer) in [(&plain, &plain), (&certifier, &subkey)] {
        let text = gnupg.gpg(&["--armor", "--export-secret-keys", name]);
        let key = SecretKey::from_armored(&text).unwrap();
        assert_eq!(&key.fingerprint().to_string(), signer);
        let signature = key.sign(&b"index"[..], MADE_SECONDS).unwrap();
        let keyring = gnupg.export(name);
        assert_eq!(
            check(&keyring, days(1), b"index", signature.as_bytes()),
            "good"
        );
        assert!(gnupg.gpgv(&keyring, b"index", &signature));
    }

    gnupg.gpg(&[
        "--passphrase",
        "secret",
        "--quick-generate-key",
        "locked",
        "ed25519",
        "sign",
        "never",
    ]);
    let text = gnupg.gpg(&[
        "--passphrase",
        "secret",
        "--armor",
        "--export-secret-keys",
        "locked",
    ]);
    let refused = SecretKey::from_armored(&text).unwrap_err();
    assert!(matches!(refused, SecretKeyError::Locked), "{refused:?}");

    let both = gnupg.gpg(&["--armor", "--export-secret-keys", &plain, &certifier]);
    let refused = SecretKey::from_armored(&both).unwrap_err();
    assert!(matches!(refused, SecretKeyError::NotOne), "{refused:?}");
}

fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn keyring_archives_are_exchanged_with_tar_and_xz() {
    let gnupg = Gnupg::new();
    let key = gnupg.generate("a", "ed25519", "sign", "never");
    let keyring = Keyring {
        info: KeyringInfo::new(KeyringType::ImageSigning),
        certificates: gnupg.export(&key),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);

    fs::write(path("ours.tar.xz"), keyring.pack()).unwrap();
    let listing = run("tar", &["-tvJf", "ours.tar.xz"], dir.path());
    let names: Vec<_> = listing
        .lines()
        .map(|l| {
            (
                l.starts_with("-rw-r--r-- root/root"),
                l.split(' ').next_back(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [(true, Some("keyring.json")), (true, Some("keyring.gpg"))],
        "{listing}"
    );
    let stream = run("xz", &["--robot", "-l", "ours.tar.xz"], dir.path());
    assert!(stream.contains("\tCRC64\t"), "{stream}");

    run("tar", &["-xJf", "ours.tar.xz"], dir.path());
    for format in ["gnu", "ustar", "pax"] {
        let option = format!("--format={format}");
        run(
            "tar",
            &[&option, "-cf", "theirs.tar", "keyring.json", "keyring.gpg"],
            dir.path(),
        );
        run("xz", &["-9", "-f", "theirs.tar"], dir.path());
        let theirs = Verified::trust_unsigned_for_testing(fs::read(path("theirs.tar.xz")).unwrap());
        let read = Keyring::open(&theirs).unwrap();
        assert_eq!(read.info, keyring.info, "{format}");
        assert_eq!(
            read.certificates.to_bytes(),
            keyring.certificates.to_bytes(),
            "{format}"
        );
    }
}

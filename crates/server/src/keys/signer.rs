//! Who makes a signature: a key of ours, GnuPG with a home of the original's, or a command of the
//! operator's that reaches a key somewhere else.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::keyring::KeyringType;
use system_image_trust::{Certificates, Fingerprint, Now, SecretKey, Signers};

use crate::config::Config;
use crate::root::Root;

/// Longest signature that is taken from another program, in bytes.
const MAX_SIGNATURE: u64 = 64 << 10;

/// What makes the signatures of one role.
#[derive(Debug)]
pub enum Signer {
    /// A secret key in `secret-key.asc`.
    Key(SecretKey),
    /// The only secret key of a GnuPG home; gpg-agent has its passphrase, if it has one.
    GnuPg {
        /// The home.
        home: Utf8PathBuf,
    },
    /// A command line of `sign_command`. It gets the role as `SYSTEM_IMAGE_ROLE`, the content on its
    /// input, and writes the armoured detached signature to its output.
    Command {
        /// The command line, for a shell.
        command: String,
        /// The role.
        role: KeyringType,
    },
}

impl Signer {
    /// The signer of a role: the configured command, else what lies in the role's directory.
    pub fn of(root: &Root, config: &Config, role: KeyringType) -> anyhow::Result<Self> {
        if let Some(command) = config.sign_command(role) {
            let command = command.to_owned();
            return Ok(Self::Command { command, role });
        }
        let place = root.secret_key(role);
        let home = root.keys().join(role.as_str());
        if !place.exists() && is_gnupg_home(&home) {
            return Ok(Self::GnuPg { home });
        }
        let text = fs::read(&place).with_context(|| {
            format!(
                "the {role} key cannot be read from `{place}`; a key that lives elsewhere is reached \
                 by `sign_command` of the configuration"
            )
        })?;
        let key = SecretKey::from_armored(&text);
        Ok(Self::Key(
            key.with_context(|| format!("`{place}` is not usable"))?,
        ))
    }

    /// How people call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "file",
            Self::GnuPg { .. } => "gnupg",
            Self::Command { .. } => "command",
        }
    }

    /// The key that signs, where that is known without a signature.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Key(key) => Some(key.fingerprint()),
            Self::GnuPg { .. } | Self::Command { .. } => None,
        }
    }

    /// The detached signature of `data`, made at `now`. One of another program is checked against
    /// `trusted` before anybody sees it.
    pub fn sign(
        &self,
        mut data: impl Read + Seek,
        now: i64,
        trusted: &Certificates,
    ) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Key(key) => return key.sign(data, now).context("cannot sign"),
            Self::GnuPg { home } => {
                let mut command = Command::new("gpg");
                command.args(["--homedir", home.as_str(), "--batch", "--no-tty", "--quiet"]);
                command.args(["--armor", "--digest-algo", "SHA512", "--detach-sign"]);
                command.args(["--output", "-"]);
                command
            }
            Self::Command { command, role } => {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]);
                shell.env("SYSTEM_IMAGE_ROLE", role.as_str());
                shell
            }
        };
        let text = run(&mut command, &mut data).context("cannot sign")?;
        data.rewind()?;
        // Its clock may be a little ahead of ours.
        let signers = Signers::new([trusted], Now::from_clock(now));
        let checked = signers.verify_reader(&mut data, text.as_bytes());
        let _ =
            checked.context("what was signed elsewhere is not signed by a key of the keyring")?;
        Ok(text)
    }
}

/// Whether a directory is a GnuPG home with secret keys.
fn is_gnupg_home(home: &Utf8Path) -> bool {
    home.join("private-keys-v1.d").is_dir() || home.join("secring.gpg").is_file()
}

/// Feeds `data` to a program. Returns what it prints.
fn run(command: &mut Command, data: &mut impl Read) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{name}`"))?;
    let mut input = child.stdin.take().context("its input was asked for")?;
    let fed = io::copy(data, &mut input).and_then(|_| input.flush());
    drop(input);
    let mut text = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_SIGNATURE).read_to_string(&mut text)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{name}` ended with {}: {}", output.status, said.trim());
    }
    fed.with_context(|| format!("`{name}` did not take all of the content"))?;
    ensure!(!text.is_empty(), "`{name}` made no signature");
    Ok(text)
}

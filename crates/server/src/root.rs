//! Where a server's files are: the tree to publish, and beside it, never below, what is secret.

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::keyring::KeyringType;

use crate::config::Config;

/// A server's directory, laid out as the original's (server spec, section 12):
///
/// ```text
/// etc/config, etc/config.d/   configuration
/// www/                        the published tree
/// secret/gpg/keys/            private keys
/// secret/gpg/keyrings/        packed keyrings with their signatures
/// state/                      lock, history and scratch space
/// ```
///
/// The configuration may put all but itself elsewhere.
#[derive(Clone, Debug)]
pub struct Root {
    directory: Utf8PathBuf,
    www: Utf8PathBuf,
    keys: Utf8PathBuf,
    keyrings: Utf8PathBuf,
    state: Utf8PathBuf,
}

impl Root {
    /// The server at this directory, with everything where it is by default.
    pub fn new(directory: impl Into<Utf8PathBuf>) -> Self {
        Self::configured(directory, &Config::default())
    }

    /// The server at this directory, with everything where the configuration says.
    pub fn configured(directory: impl Into<Utf8PathBuf>, config: &Config) -> Self {
        let directory = directory.into();
        let set = |key| config.paths.get(key).map(String::as_str);
        let base = directory.join(set("base_path").unwrap_or("."));
        let at = |key, usual: &str| {
            let path = base.join(set(key).unwrap_or(usual));
            // `./` in front tells nobody anything.
            path.components().collect::<Utf8PathBuf>()
        };
        Self {
            www: at("publish_path", "www"),
            keys: at("gpg_key_path", "secret/gpg/keys"),
            keyrings: at("gpg_keyring_path", "secret/gpg/keyrings"),
            state: at("state_path", "state"),
            directory,
        }
    }

    /// The same server with its secrets in another place, below `place`: for what must not touch
    /// the real ones.
    #[must_use]
    pub fn with_secrets(&self, place: &Utf8Path) -> Self {
        Self {
            keys: place.join("keys"),
            keyrings: place.join("keyrings"),
            ..self.clone()
        }
    }

    /// The directory itself.
    pub fn directory(&self) -> &Utf8Path {
        &self.directory
    }

    /// The configuration file.
    pub fn config(&self) -> Utf8PathBuf {
        self.directory.join("etc/config")
    }

    /// The published tree.
    pub fn www(&self) -> Utf8PathBuf {
        self.www.clone()
    }

    /// All private keys.
    pub fn keys(&self) -> Utf8PathBuf {
        self.keys.clone()
    }

    /// The private key of one role.
    pub fn secret_key(&self, role: KeyringType) -> Utf8PathBuf {
        self.keys.join(role.as_str()).join("secret-key.asc")
    }

    /// All packed keyrings.
    pub fn keyrings(&self) -> Utf8PathBuf {
        self.keyrings.clone()
    }

    /// A packed keyring; its signature stands beside it.
    pub fn keyring(&self, kind: KeyringType) -> Utf8PathBuf {
        self.keyrings.join(format!("{kind}.tar.xz"))
    }

    /// The server's own working files.
    pub fn state(&self) -> Utf8PathBuf {
        self.state.clone()
    }

    /// A path of the configuration: relative ones count from the server's directory.
    pub fn path(&self, path: &Utf8Path) -> Utf8PathBuf {
        self.directory.join(path)
    }
}

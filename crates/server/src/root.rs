//! Where a server's files are: the tree to publish, and beside it, never below, what is secret.

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::keyring::KeyringType;

/// A server's directory, laid out as the original's (server spec, section 12):
///
/// ```text
/// etc/config               configuration
/// www/                     the published tree
/// secret/gpg/keys/         private keys
/// secret/gpg/keyrings/     packed keyrings with their signatures
/// state/                   lock and scratch space
/// ```
#[derive(Clone, Debug)]
pub struct Root(Utf8PathBuf);

impl Root {
    /// The server at this directory.
    pub fn new(directory: impl Into<Utf8PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The directory itself.
    pub fn directory(&self) -> &Utf8Path {
        &self.0
    }

    /// The configuration file.
    pub fn config(&self) -> Utf8PathBuf {
        self.0.join("etc/config")
    }

    /// The published tree.
    pub fn www(&self) -> Utf8PathBuf {
        self.0.join("www")
    }

    /// All private keys.
    pub fn keys(&self) -> Utf8PathBuf {
        self.0.join("secret/gpg/keys")
    }

    /// The private key of one role.
    pub fn secret_key(&self, role: KeyringType) -> Utf8PathBuf {
        self.keys().join(role.as_str()).join("secret-key.asc")
    }

    /// All packed keyrings.
    pub fn keyrings(&self) -> Utf8PathBuf {
        self.0.join("secret/gpg/keyrings")
    }

    /// A packed keyring; its signature stands beside it.
    pub fn keyring(&self, kind: KeyringType) -> Utf8PathBuf {
        self.keyrings().join(format!("{kind}.tar.xz"))
    }

    /// The server's own working files.
    pub fn state(&self) -> Utf8PathBuf {
        self.0.join("state")
    }
}

//! What keys there are, and when they end.

use serde::Serialize;
use system_image_formats::keyring::KeyringType;

use super::{PUBLISHED, Signer, open};
use crate::published::Published;

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    /// Its name.
    pub role: String,
    /// How it signs: `file`, `gnupg`, `command`, or not here.
    pub signer: Option<String>,
    /// When its keyring ends, in Unix seconds.
    pub keyring_expires: Option<i64>,
    /// The keys of its keyring.
    pub keys: Vec<Key>,
}

/// A key of a keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its fingerprint.
    pub fingerprint: String,
    /// When it was made, in Unix seconds.
    pub created: Option<i64>,
    /// When it ends, in Unix seconds.
    pub expires: Option<i64>,
    /// Whether it is the one that signs.
    pub signs: bool,
}

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct End {
    /// When, in Unix seconds.
    pub at: i64,
    /// What, for people.
    pub what: String,
    /// What to do before.
    pub remedy: String,
}

/// The roles with their keys.
pub fn roles(tree: &Published) -> anyhow::Result<Vec<Role>> {
    let mut roles = Vec::new();
    for role in PUBLISHED {
        let Some(keyring) = open(tree.root(), role)? else {
            continue;
        };
        let signer = Signer::of(tree.root(), tree.config(), role).ok();
        let current = signer.as_ref().and_then(Signer::fingerprint);
        roles.push(Role {
            role: role.to_string(),
            signer: signer.map(|signer| signer.kind().to_owned()),
            keyring_expires: keyring.info.expiry,
            keys: keyring
                .certificates
                .facts()
                .map(|facts| Key {
                    fingerprint: facts.fingerprint.to_string(),
                    created: facts.created,
                    expires: facts.expires,
                    signs: current == Some(facts.fingerprint),
                })
                .collect(),
        });
    }
    Ok(roles)
}

/// Everything that ends before `until`, in order: keyrings, the keys that sign, and the keyrings of
/// devices.
pub fn ends(tree: &Published, until: i64) -> anyhow::Result<Vec<End>> {
    let mut ends = Vec::new();
    for role in roles(tree)? {
        let name = &role.role;
        if name == KeyringType::Blacklist.as_str() {
            continue;
        }
        ends.extend(role.keyring_expires.map(|at| End {
            at,
            what: format!("the {name} keyring"),
            remedy: format!("keys renew {name}"),
        }));
        for key in role.keys {
            let only = key.signs || role.signer.as_deref() != Some("file");
            ends.extend(key.expires.filter(|_| only).map(|at| End {
                at,
                what: format!("the {name} key {}", key.fingerprint),
                remedy: format!("keys rotate {name}"),
            }));
        }
    }
    // With a key that has ended, the tree cannot be read: what matters is told above.
    let channels = tree.channels().unwrap_or_default();
    for (channel, found) in &channels.0 {
        for (device, entry) in &found.devices {
            if found.followed(channel).is_some() || entry.redirect.is_some() {
                continue;
            }
            let keyring = tree.device_keyring(entry)?;
            ends.extend(
                keyring
                    .and_then(|keyring| keyring.info.expiry)
                    .map(|at| End {
                        at,
                        what: format!("the keyring of `{device}` in channel `{channel}`"),
                        remedy: format!("keys device {device} KEYS --attach {channel}"),
                    }),
            );
        }
    }
    ends.retain(|end| end.at < until);
    ends.sort();
    Ok(ends)
}

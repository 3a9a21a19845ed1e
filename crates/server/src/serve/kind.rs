//! What a published file is by its name: its content type, and how long caches may keep it.

use http::HeaderValue;
use system_image_formats::name::TreePath;

/// Caches ask again each time, and are told "not modified": documents, signatures and keyrings
/// change under their names (server spec, section 19.3).
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Payloads in the pool have names made of their input. Bytes under such a name change only when
/// the same input is imported again after its file expired; a day bounds how long a cache would
/// then serve what no index names.
const A_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// What was asked for, as far as requests are counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A JSON file: channel list, index, side file.
    Document,
    /// A detached signature.
    Signature,
    /// A keyring.
    Keyring,
    /// A file of an image.
    Payload,
    /// Any other file.
    Other,
    /// No published file.
    Nothing,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Document,
        Self::Signature,
        Self::Keyring,
        Self::Payload,
        Self::Other,
        Self::Nothing,
    ];

    /// Of the file with this name.
    pub(super) fn of(path: &TreePath) -> Self {
        let path = path.relative();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        match name.rsplit('.').next() {
            Some("json") => Self::Document,
            Some("asc") => Self::Signature,
            Some("xz") if directory == "gpg" || name == "device.tar.xz" => Self::Keyring,
            Some("xz") => Self::Payload,
            _ => Self::Other,
        }
    }

    /// Its name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Signature => "signature",
            Self::Keyring => "keyring",
            Self::Payload => "payload",
            Self::Other => "other",
            Self::Nothing => "nothing",
        }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Document => "application/json",
            Self::Signature => "application/pgp-signature",
            Self::Keyring | Self::Payload => "application/x-xz",
            Self::Other | Self::Nothing => "application/octet-stream",
        })
    }

    pub(super) fn cache_control(self, path: &TreePath) -> HeaderValue {
        match self {
            Self::Payload if path.relative().starts_with("pool/") => A_DAY,
            _ => REVALIDATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_payloads_in_the_pool_are_kept_by_caches() {
        for (path, kind, cached) in [
            ("/channels.json", Kind::Document, "no-cache"),
            ("/channels.json.asc", Kind::Signature, "no-cache"),
            ("/gpg/image-master.tar.xz", Kind::Keyring, "no-cache"),
            ("/c/tango/device.tar.xz", Kind::Keyring, "no-cache"),
            ("/c/tango/version-3.tar.xz", Kind::Payload, "no-cache"),
            ("/pool/a.tar.xz", Kind::Payload, "public, max-age=86400"),
            ("/pool/a.tar.xz.asc", Kind::Signature, "no-cache"),
            ("/pool/a.json", Kind::Document, "no-cache"),
            ("/robots.txt", Kind::Other, "no-cache"),
        ] {
            let path: TreePath = path.parse().unwrap();
            assert_eq!(Kind::of(&path), kind, "{path}");
            assert_eq!(kind.cache_control(&path), cached, "{path}");
        }
    }
}

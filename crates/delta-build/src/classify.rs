//! Tells a finished payload from a root file system by the names at the top of an archive.

use std::collections::BTreeSet;
use std::io::Read;

use system_image_delta::path::Shown;
use system_image_delta::{Header, Kind, Limits, MemberPath, ReadError, Reader};

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Paths as on the wire: `system/…`, `partitions/…` and so on (server spec, section 8).
    Payload,
    /// Paths from `/`: `usr/…`, `etc/…`. They get `system/` in front (server spec, section 8.2).
    Rootfs,
}

/// Top-level names of payloads (server spec, section 8; upgrader spec, section 7).
const PAYLOAD: [&[u8]; 13] = [
    b"system",
    b"partitions",
    b"data",
    b"vendor",
    b"recovery",
    b"assets",
    b"flashtool-assets",
    b"hardware.yaml",
    b"boot.img",
    b"removed",
    b"legacy_channel",
    b"system_in_data",
    b"disable_syspart",
];

/// Those of them that no root file system has, as directories at least.
const PAYLOAD_ONLY: [&[u8]; 10] = [
    b"partitions",
    b"recovery",
    b"assets",
    b"flashtool-assets",
    b"hardware.yaml",
    b"boot.img",
    b"removed",
    b"legacy_channel",
    b"system_in_data",
    b"disable_syspart",
];

/// Top-level names that each root file system has some of.
const ROOTFS: [&[u8]; 6] = [b"usr", b"etc", b"bin", b"sbin", b"lib", b"var"];

/// Why the form cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    /// It is no readable archive.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No member at all.
    #[error("the archive is empty")]
    Empty,
    /// Names of both forms.
    #[error(
        "the archive has `{}` of a payload beside `{}` of a root file system",
        Shown(.payload), Shown(.rootfs)
    )]
    Mixed {
        /// A name of payloads.
        payload: Vec<u8>,
        /// A name of root file systems.
        rootfs: Vec<u8>,
    },
    /// Names of neither form.
    #[error("the archive has `{}` at its top, neither a payload nor a root file system", Shown(.name))]
    Unknown {
        /// One of the names.
        name: Vec<u8>,
    },
}

/// Reads an archive to its end and tells its form.
pub fn classify(input: impl Read, limits: Limits) -> Result<Form, ClassifyError> {
    let mut reader = Reader::new(input, limits);
    let mut classifier = Classifier::default();
    while let Some(header) = reader.next_header()? {
        classifier.observe(&header);
    }
    classifier.form()
}

/// Collects the top-level names of an archive.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    tops: BTreeSet<Box<[u8]>>,
    /// A `system` that holds something: a link or an empty mount point of that name is part of
    /// many root file systems of phones.
    system: bool,
}

impl Classifier {
    /// Takes note of a member. Names that lead out of the archive are left to others.
    pub fn observe(&mut self, header: &Header) {
        let Ok(path) = MemberPath::parse_rooted(&header.path) else {
            return;
        };
        if let Some((top, below)) = path.split_first() {
            self.system |= top == b"system" && !below.is_root();
            // A link called `vendor` or `data` says nothing either way.
            let telling = !matches!(header.kind, Kind::Symlink { .. }) || ROOTFS.contains(&top);
            if telling && !self.tops.contains(top) {
                self.tops.insert(top.into());
            }
        }
    }

    /// The form of an archive with the members observed.
    pub fn form(&self) -> Result<Form, ClassifyError> {
        let has = |names: &[&[u8]]| {
            names
                .iter()
                .find(|name| self.tops.contains(**name))
                .map(|name| name.to_vec())
        };
        let system = self.system.then(|| b"system".to_vec());
        let payload = system.or_else(|| has(&PAYLOAD_ONLY));
        match (has(&ROOTFS), payload) {
            (Some(rootfs), Some(payload)) => Err(ClassifyError::Mixed { payload, rootfs }),
            (Some(_), None) => Ok(Form::Rootfs),
            (None, _) => {
                let foreign = self.tops.iter().find(|top| !PAYLOAD.contains(&&***top));
                match foreign {
                    Some(name) => Err(ClassifyError::Unknown {
                        name: name.to_vec(),
                    }),
                    None if self.tops.is_empty() => Err(ClassifyError::Empty),
                    None => Ok(Form::Payload),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use system_image_delta::Mtime;

    use super::*;

    fn form(paths: &[&str]) -> Result<Form, ClassifyError> {
        let mut classifier = Classifier::default();
        for path in paths {
            let kind = match path.split_once(" -> ") {
                Some((_, target)) => Kind::Symlink {
                    target: target.into(),
                },
                None => Kind::Directory,
            };
            let path = path.split(" -> ").next().unwrap().into();
            let mtime = Mtime::default();
            let (mode, uid, gid, xattrs, acl) = (0o755, 0, 0, Vec::new(), false);
            classifier.observe(&Header {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
                acl,
            });
        }
        classifier.form()
    }

    #[test]
    fn forms_are_told_by_their_top_level_names() {
        for (paths, want) in [
            (&["system/etc/x", "partitions/boot.img"][..], Form::Payload),
            (&["./system/", "./system/usr"], Form::Payload),
            (&["data/x"], Form::Payload),
            (&["removed", "system_in_data"], Form::Payload),
            (
                &[
                    "./",
                    "./etc",
                    "./bin -> usr/bin",
                    "./boot/x",
                    "./data",
                    "./system",
                ],
                Form::Rootfs,
            ),
            (
                &[
                    "/usr/bin/x",
                    "vendor -> /android/vendor",
                    "system -> /android",
                ],
                Form::Rootfs,
            ),
            (&["bin -> usr/bin"], Form::Rootfs),
        ] {
            assert_eq!(form(paths).unwrap(), want, "{paths:?}");
        }
    }

    #[test]
    fn an_archive_of_both_forms_or_neither_is_refused() {
        assert!(matches!(form(&[]), Err(ClassifyError::Empty)));
        assert!(matches!(
            form(&["system/x", "etc/y"]),
            Err(ClassifyError::Mixed { .. })
        ));
        assert!(matches!(
            form(&["removed", "usr"]),
            Err(ClassifyError::Mixed { .. })
        ));
        assert!(matches!(
            form(&["system/x", "mydata/y"]),
            Err(ClassifyError::Unknown { .. })
        ));
        assert!(matches!(
            form(&["mydata/y"]),
            Err(ClassifyError::Unknown { .. })
        ));
    }
}

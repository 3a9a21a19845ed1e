//! A tarball in canonical form, on its way into the pool.

use std::fs::File;
use std::io::{self, BufWriter, Read};

use anyhow::Context;
use camino::Utf8Path;
use system_image_delta::Limits;
use system_image_delta_build::{Edits, Form, classify, normalise_with};
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hashing;
use system_image_formats::name::TreePath;

use crate::input::{self, scratch};
use crate::tree::Tree;

const BUFFER: usize = 256 << 10;

/// A tarball in canonical form, uncompressed, in a file without a name.
#[derive(Debug)]
pub struct Payload {
    /// Name in the pool up to the hash.
    pub prefix: String,
    /// Digest of the uncompressed bytes: the hash in the pool's name.
    pub digest: Sha256,
    /// The bytes.
    pub tar: File,
}

impl Payload {
    /// Brings a file, `.tar`, `.tar.xz` or `.tar.gz`, into canonical form.
    pub fn prepare(tree: &Tree, input: &Utf8Path, form: Option<Form>) -> anyhow::Result<Self> {
        let unusable = || format!("cannot publish `{input}`");
        let mut file = File::open(input).with_context(unusable)?;
        let mut progress = input::reading(input, &file)?;
        let form = if let Some(form) = form {
            form
        } else {
            let source = input::open(&mut file, &mut progress)?;
            classify(source, Limits::default()).with_context(unusable)?
        };
        progress.set(0);
        let source = input::open(&mut file, &mut progress)?;
        let (tar, digest) =
            canonical(tree, source, form, &Edits::default()).with_context(unusable)?;
        progress.finish();
        Ok(Self {
            prefix: prefix(input, form),
            digest,
            tar,
        })
    }

    /// The payload's place in the pool.
    pub fn path(&self) -> anyhow::Result<TreePath> {
        Ok(format!("/pool/{}-{}.tar.xz", self.prefix, self.digest).parse()?)
    }
}

/// Brings a stream into canonical form. Returns the archive and its digest.
pub fn canonical(
    tree: &Tree,
    source: impl Read,
    form: Form,
    edits: &Edits,
) -> anyhow::Result<(File, Sha256)> {
    let mut output = Hashing::new(BufWriter::with_capacity(BUFFER, scratch(tree)?));
    let normalised = normalise_with(source, form, Limits::default(), edits, &mut output)?;
    if normalised.acls_dropped > 0 {
        eprintln!(
            "note: the ACLs of {} members are left out, no upgrader restores them",
            normalised.acls_dropped
        );
    }
    let (output, digest) = output.finish();
    let tar = output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok((tar, digest))
}

/// A prefix that names of the pool may begin with, from the input's name: the same for the same
/// kind of file in each image, as it pairs a file with its predecessor (server spec, section 7).
fn prefix(input: &Utf8Path, form: Form) -> String {
    if form == Form::Rootfs {
        return "rootfs".into();
    }
    let name = input.file_name().unwrap_or_default();
    let stem = name.strip_suffix(".xz").unwrap_or(name);
    let stem = stem.strip_suffix(".gz").unwrap_or(stem);
    let stem = stem.strip_suffix(".tar").unwrap_or(stem);
    // A file from another pool has its hash there already.
    let stem = match stem.rsplit_once('-') {
        Some((prefix, hash)) if hash.parse::<Sha256>().is_ok() => prefix,
        _ => stem,
    };
    let plain: String = stem
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+'))
        .collect();
    let plain = plain.trim_matches(['.', '-']);
    if plain.is_empty() {
        "payload".into()
    } else {
        plain.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_same_for_each_image_of_a_file() {
        let of = |name: &str| prefix(Utf8Path::new(name), Form::Payload);
        assert_eq!(of("in/device.tar.xz"), "device");
        assert_eq!(of("custom-vendor.tar"), "custom-vendor");
        assert_eq!(of(&format!("device-{}.tar.xz", "0a".repeat(32))), "device");
        assert_eq!(of("ein name.tar"), "einname");
        assert_eq!(of(".tar"), "payload");
        assert_eq!(prefix(Utf8Path::new("v1.tar"), Form::Rootfs), "rootfs");
    }
}

//! Rewrites any tar archive in the canonical form, as one stream.
//!
//! In: GNU, ustar or pax, with or without `./`. Out: what [`Writer`] writes, in source order;
//! the same members give the same bytes, whoever packed them. Fractions of a second, owner
//! names and ACLs have no place in that form and are left out, sparse files are written out.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use system_image_delta::path::Shown;
use system_image_delta::{Header, Kind, Limits, MemberPath, PathError, ReadError, Reader};

use crate::classify::Form;
use crate::writer::Writer;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalised {
    /// Members.
    pub members: u64,
    /// Length of the archive in bytes.
    pub bytes: u64,
    /// Members that lost an ACL: no recovery can restore it.
    pub acls_dropped: u64,
    /// Members that came again later; the later one wins on the device.
    pub repeated: u64,
}

/// Why an archive cannot be normalised.
#[derive(Debug, thiserror::Error)]
pub enum NormaliseError {
    /// The input is no readable archive.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written, or a file's content not be read.
    #[error("cannot copy the archive")]
    Copy(#[source] io::Error),
    /// A name or a hard link's target leads out of the archive.
    #[error("member `{}`: {why}", Shown(.path))]
    Path {
        /// The name.
        path: Vec<u8>,
        /// What is wrong with it.
        why: PathError,
    },
    /// A hard link to something that did not come before it, or to a directory.
    #[error("member `{path}` is a hard link to `{}`, and no file of that name comes before it", Shown(.target))]
    Link {
        /// The link.
        path: MemberPath,
        /// What it names.
        target: Vec<u8>,
    },
    /// One name for a directory and for something else: what results differs from tar to tar.
    #[error("`{path}` is a directory and something else in the same archive")]
    Conflict {
        /// The name.
        path: MemberPath,
    },
}

/// What is changed on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names on the wire that are left out.
    pub left_out: Vec<String>,
    /// Members without content that come last, with the newest time of all others and owned by
    /// root. One that is there already as a directory is left as it is; a directory on the way
    /// that is a symbolic link is followed.
    pub appended: Vec<Appended>,
}

/// A member without content that is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its name on the wire, e.g. `system/etc/mtab`.
    pub path: String,
    /// A directory or a symbolic link.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
}

/// Rewrites `input` to `output` in the canonical form.
pub fn normalise(
    input: impl Read,
    form: Form,
    limits: Limits,
    output: impl Write,
) -> Result<Normalised, NormaliseError> {
    normalise_with(input, form, limits, &Edits::default(), output)
}

/// Rewrites `input` to `output` in the canonical form, changed a little.
pub fn normalise_with(
    input: impl Read,
    form: Form,
    limits: Limits,
    edits: &Edits,
    output: impl Write,
) -> Result<Normalised, NormaliseError> {
    let mut reader = Reader::new(input, limits);
    let mut writer = Writer::new(output);
    let mut done = Normalised::default();
    // Whether each name so far is a directory's.
    let mut seen: HashMap<MemberPath, bool> = HashMap::new();
    let mut links: HashMap<MemberPath, Vec<u8>> = HashMap::new();
    let mut newest = 0;
    while let Some(mut header) = reader.next_header()? {
        let path = placed(&header.path, form)?;
        let left_out = |name: &String| name.as_bytes() == path.as_bytes();
        if path.is_root() || edits.left_out.iter().any(left_out) {
            continue;
        }
        newest = newest.max(header.mtime.seconds);
        if let (Kind::Symlink { target }, false) = (&header.kind, edits.appended.is_empty()) {
            links.insert(path.clone(), target.clone());
        }
        let is_directory = header.kind == Kind::Directory;
        if let Kind::HardLink { target } = &mut header.kind {
            let found = placed(target, form)?;
            if seen.get(&found) != Some(&false) {
                return Err(NormaliseError::Link {
                    path,
                    target: found.as_bytes().to_vec(),
                });
            }
            *target = found.as_bytes().to_vec();
            // The same name again is no link to itself, but a link that is there already.
            if found == path {
                continue;
            }
        }
        match seen.insert(path.clone(), is_directory) {
            Some(before) if before != is_directory => {
                return Err(NormaliseError::Conflict { path });
            }
            before => done.repeated += u64::from(before.is_some()),
        }
        done.members += 1;
        done.acls_dropped += u64::from(header.acl);
        canonical(&mut header, &path);
        writer
            .member(&header, &mut reader)
            .map_err(NormaliseError::Copy)?;
    }
    for member in &edits.appended {
        let path = followed(member.path.as_bytes(), &links)?;
        let is_directory = member.kind == Kind::Directory;
        match seen.insert(path.clone(), is_directory) {
            Some(true) => continue,
            Some(false) if is_directory => continue,
            before => done.repeated += u64::from(before.is_some()),
        }
        done.members += 1;
        let mut header = Header::of_root(Vec::new(), member.kind.clone(), member.mode, newest);
        canonical(&mut header, &path);
        writer
            .member(&header, &mut io::empty())
            .map_err(NormaliseError::Copy)?;
    }
    let (_, bytes) = writer.finish().map_err(NormaliseError::Copy)?;
    Ok(Normalised { bytes, ..done })
}

/// A name whose directory may be a symbolic link within the system, as `lib` is to `usr/lib`.
fn followed(
    path: &[u8],
    links: &HashMap<MemberPath, Vec<u8>>,
) -> Result<MemberPath, NormaliseError> {
    let parsed = placed(path, Form::Payload)?;
    let Some(at) = path.iter().rposition(|byte| *byte == b'/') else {
        return Ok(parsed);
    };
    let (parent, name) = (&path[..at], &path[at + 1..]);
    match links.get(&placed(parent, Form::Payload)?) {
        // Only the plain form that a merged `/usr` has.
        Some(target) if !target.starts_with(b"/") && !target.starts_with(b".") => {
            let top = parent.iter().rposition(|byte| *byte == b'/');
            let top = top.map_or(&b""[..], |at| &parent[..=at]);
            placed(&[top, target, b"/", name].concat(), Form::Payload)
        }
        _ => Ok(parsed),
    }
}

/// The path of a member on the wire; the empty one for the root of a payload.
fn placed(path: &[u8], form: Form) -> Result<MemberPath, NormaliseError> {
    let parsed = MemberPath::parse_rooted(path).map_err(|why| NormaliseError::Path {
        path: path.to_vec(),
        why,
    })?;
    Ok(match form {
        Form::Payload => parsed,
        Form::Rootfs => parsed.below(b"system"),
    })
}

/// What the canonical form cannot say is cut from the header.
fn canonical(header: &mut Header, path: &MemberPath) {
    header.path = path.as_bytes().to_vec();
    header.mtime.nanos = 0;
    header.acl = false;
    match &header.kind {
        // A link is one name more of a file, whose metadata came with the file.
        Kind::HardLink { .. } => header.xattrs.clear(),
        // Tools write 0777, 0755 or 0644 for links, and the kernel ignores them all.
        Kind::Symlink { .. } => header.mode = 0o777,
        _ => {}
    }
}

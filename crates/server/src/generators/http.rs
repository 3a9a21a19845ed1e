//! `http` and `http-cdimage`: a file behind a URL (server spec, sections 13.3 and 13.4, without what
//! section 21, 23 says of them).

use std::fs;
use std::fs::File;

use anyhow::{Context, bail, ensure};
use system_image_delta::{Limits, Reader};
use system_image_delta_build::Form;
use system_image_fetch::Size;
use system_image_formats::checksum::Sha256;
use system_image_formats::name::TreePath;
use system_image_formats::side::SideFile;
use system_image_trust::{Certificates, Now, Signers};

use super::{Job, Produced, digest, item, known, pool_path, store};
use crate::config::Download;
use crate::input;
use crate::part::Part;
use crate::payload::canonical;
use crate::pool;
use crate::rootfs;
use crate::web::{self, Web};

/// Longest answer of a monitor, in bytes.
const MAX_MONITOR: usize = 64 << 10;

/// Longest checksum file, in bytes: `SHA256SUMS` of a whole directory.
const MAX_SUMS: usize = 4 << 20;

/// Longest signature, in bytes.
const MAX_SIGNATURE: usize = 64 << 10;

/// Largest file that is fetched, in bytes.
const MAX_FILE: u64 = 64 << 30;

/// A finished `.tar.xz`, which is published as it is.
pub(super) fn produce(job: Job<'_>, source: &Download) -> anyhow::Result<Produced> {
    let new = match look(job, source)? {
        Seen::Known(found) => return Ok(found),
        Seen::New(new) => new,
    };
    let mut file = new.fetched.open()?;
    check_archive(&mut file).with_context(|| format!("`{}` cannot be used", source.url))?;
    let detail = item(&source.name, &new.version)?;
    let mut side = SideFile::new("http", detail.clone());
    let more = [("version", &new.version), ("url", &source.url)];
    side.extra
        .extend(more.map(|(key, value)| (key.to_owned(), value.as_str().into())));
    let entry = pool::adopt(job.tree, &new.path, &mut file, &side)?;
    new.fetched.done()?;
    Ok(Produced::File(Part::stored(entry), detail))
}

/// A root file system `.tar.gz`, which becomes a payload.
pub(super) fn produce_rootfs(job: Job<'_>, source: &Download) -> anyhow::Result<Produced> {
    let new = match look(job, source)? {
        Seen::Known(found) => return Ok(found),
        Seen::New(new) => new,
    };
    let mut file = new.fetched.open()?;
    let mut progress = input::reading(source.url.as_str().into(), &file)?;
    let stream = input::open(&mut file, &mut progress)?;
    let edits = rootfs::edits(&source.product, true);
    let (tar, _) = canonical(job.tree, stream, Form::Rootfs, &edits)
        .with_context(|| format!("`{}` cannot be used", source.url))?;
    progress.finish();
    let detail = item(&source.name, &new.version)?;
    let more = [("url", source.url.clone().into())];
    let produced = store(job.tree, &new.path, tar, "cdimage-ubports", detail, &more)?;
    new.fetched.done()?;
    Ok(produced)
}

/// What there is behind a URL.
enum Seen {
    /// The pool has it already.
    Known(Produced),
    /// It was fetched.
    New(New),
}

/// A file that the pool does not have yet.
struct New {
    fetched: web::Download,
    version: String,
    /// Its place in the pool.
    path: TreePath,
}

/// Looks whether the pool has the file, by its version if that is offered, and fetches it if not.
fn look(job: Job<'_>, source: &Download) -> anyhow::Result<Seen> {
    let web = Web::new()?;
    let monitored = monitored(job, &web, source)?;
    if let Some(version) = &monitored
        && let Some(found) = from_pool(job, source, version)?
    {
        return Ok(Seen::Known(found));
    }
    let fetched = fetch(job, &web, source)?;
    let (version, hash) = match monitored {
        Some(version) => {
            let hash = digest(&format!("{}:{version}", source.url));
            (version, hash)
        }
        None => (fetched.sha256.to_string(), fetched.sha256),
    };
    let path = pool_path(&source.name, &hash)?;
    if let Some(found) = known(job.tree, &path)? {
        fetched.done()?;
        return Ok(Seen::Known(found));
    }
    Ok(Seen::New(New {
        fetched,
        version,
        path,
    }))
}

/// What the monitor says: one line that changes when the file does.
fn monitored(job: Job<'_>, web: &Web, source: &Download) -> anyhow::Result<Option<String>> {
    let Some(url) = &source.monitor else {
        return Ok(None);
    };
    let ask = || {
        let text = web.required(url, MAX_MONITOR)?;
        let text = String::from_utf8(text).ok();
        let line = text.as_deref().map(str::trim).unwrap_or_default();
        let fits = !line.is_empty() && !line.contains(|c: char| c.is_control() || c == ',');
        ensure!(
            fits,
            "`{url}` does not answer with one line of version text"
        );
        Ok(line.to_owned())
    };
    job.run.version(url, ask).map(Some)
}

/// The file of a version that was seen before: under its hashed name, or the plain one of old trees.
fn from_pool(job: Job<'_>, source: &Download, version: &str) -> anyhow::Result<Option<Produced>> {
    if let Ok(plain) = format!("/pool/{}-{version}.tar.xz", source.name).parse()
        && let Some(found) = known(job.tree, &plain)?
    {
        return Ok(Some(found));
    }
    let hash = digest(&format!("{}:{version}", source.url));
    known(job.tree, &pool_path(&source.name, &hash)?)
}

/// Fetches the file and checks it as far as the configuration asks for it.
fn fetch(job: Job<'_>, web: &Web, source: &Download) -> anyhow::Result<web::Download> {
    let expected = match (&source.checksum, source.sha256) {
        (_, Some(sum)) => Some(sum),
        (Some(url), None) => Some(published_sum(web, url, &source.url)?),
        (None, None) => None,
    };
    let directory = job.tree.root().state().join("downloads");
    let fetched = web.download(&directory, &source.url, Size::AtMost(MAX_FILE), expected)?;
    if let (Some(url), Some(place)) = (&source.signature, &source.keyring) {
        let signature = web.required(url, MAX_SIGNATURE)?;
        let place = job.tree.root().path(place);
        let keys = fs::read(&place).with_context(|| format!("cannot read `{place}`"))?;
        let keys = Certificates::parse(&keys)
            .with_context(|| format!("`{place}` is no file of public keys"))?;
        let signers = Signers::new([&keys], Now::from_clock(job.tree.now()));
        if let Err(error) = signers.verify_reader(fetched.open()?, &signature) {
            fetched.done()?;
            return Err(error).with_context(|| format!("`{}` cannot be trusted", source.url));
        }
    }
    Ok(fetched)
}

/// The digest that a file of checksums has for `url`: the only one, or the one with its name.
fn published_sum(web: &Web, sums: &str, url: &str) -> anyhow::Result<Sha256> {
    let text = web.required(sums, MAX_SUMS)?;
    let text = String::from_utf8_lossy(&text);
    let name = url.rsplit('/').next().unwrap_or(url);
    let mut bare = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(sum), file) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(sum) = sum.parse() else {
            continue;
        };
        match file {
            None => bare = Some(sum),
            Some(file) if file.trim_start_matches('*').rsplit('/').next() == Some(name) => {
                return Ok(sum);
            }
            Some(_) => {}
        }
    }
    bare.with_context(|| format!("`{sums}` has no SHA-256 of `{name}`"))
}

/// A device must be able to read it: an xz file with an archive in it, to the end.
pub(super) fn check_archive(file: &mut File) -> anyhow::Result<()> {
    let mut progress = input::reading("archive".into(), file)?;
    let mut reader = Reader::new(input::open(file, &mut progress)?, Limits::default());
    let mut members = 0u64;
    while reader.next_header()?.is_some() {
        members += 1;
    }
    drop(reader);
    progress.finish();
    if members == 0 {
        bail!("it is an empty archive");
    }
    Ok(())
}

//! From a route to files that the upgrader may apply (client spec, section 9.7).
//!
//! A file is fetched under another name, checked for size and digest while it is written, and
//! gets its own name only then. What is there already counts by its content: a signature that
//! verifies over bytes with the right digest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use anyhow::{Context, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_fetch::{Progress, Request, Size as FileSize};
use system_image_formats::command::SignedFile;
use system_image_formats::index::FileEntry;
use system_image_formats::keyring::KeyringType;
use system_image_planner::Route;
use system_image_report::Size;
use system_image_trust::{Chain, Signers, VerifyError};

use crate::files;
use crate::handover::COMMAND_FILE;
use crate::log::Log;
use crate::meter::Meters;
use crate::server::{MAX_SIGNATURE, Server};
use crate::session::Failure;

/// Room that is left free beside an update: the command file, keyrings, signatures.
const SPARE: u64 = 4 << 20;

/// There is not enough room for the files.
#[derive(Debug, thiserror::Error)]
#[error("the update needs {} in `{directory}`, {} are free", Size(*.needed), Size(*.available))]
pub struct NoRoom {
    directory: Utf8PathBuf,
    needed: u64,
    available: u64,
}

/// A file of the route and where it goes.
#[derive(Clone, Debug)]
struct Wanted<'a> {
    entry: &'a FileEntry,
    place: Utf8PathBuf,
    signature: Utf8PathBuf,
}

/// Fetches what is missing of a route's files into the drop box. Afterwards each of them is there,
/// with the digest of the index and a good signature.
pub async fn fetch(
    server: &Server,
    chain: &Chain,
    route: &Route<'_>,
    drop_box: &Utf8Path,
    meters: &Meters,
    log: &Log,
) -> Result<(), Failure> {
    files::make_directory(drop_box)?;
    let wanted = wanted(route, drop_box)?;
    let signers = chain.index_signers()?;
    let mut missing = Vec::new();
    for file in &wanted {
        if !is_good(file, &signers)? {
            missing.push(file);
        }
    }
    room(drop_box, &missing)?;

    for file in &missing {
        let url = server.payload_url(&file.entry.signature);
        let text = server
            .fetcher
            .fetch_small(&url, MAX_SIGNATURE)
            .await
            .with_context(|| format!("cannot fetch `{}`", file.entry.signature.relative()))?;
        // What no key may sign is not worth its payload.
        signers.verifier(&text).map_err(|error| unsigned(file, error))?;
        files::replace(&file.signature, &text)?;
    }
    let requests: Vec<_> = missing
        .iter()
        .map(|file| Request {
            url: server.payload_url(&file.entry.path),
            destination: file.place.clone(),
            size: FileSize::Exactly(file.entry.size),
            sha256: Some(file.entry.checksum),
        })
        .collect();
    if !requests.is_empty() {
        log.info(&format!("Requesting group download: {} files", requests.len()));
        let total = missing.iter().map(|file| file.entry.size).sum();
        meters.begin("downloading", total);
        let step = &mut |now: Progress| meters.step(now.received, now.total.unwrap_or(total));
        let fetched = server.fetcher.fetch_all(&requests, step).await;
        meters.end();
        fetched.context("cannot download the update")?;
    }
    for file in missing {
        verify(file, &signers)?;
    }
    log.info(&format!("all files available in {drop_box}"));
    Ok(())
}

fn wanted<'a>(route: &Route<'a>, drop_box: &Utf8Path) -> anyhow::Result<Vec<Wanted<'a>>> {
    let mut names = BTreeSet::new();
    let mut wanted = Vec::new();
    for entry in route.files() {
        let signed = SignedFile::of(entry.path.file_name()?)?;
        if signed.file().as_str().starts_with(COMMAND_FILE) || !names.insert(signed.file().clone())
        {
            bail!("two files of the update would be called `{}`", signed.file());
        }
        wanted.push(Wanted {
            entry,
            place: drop_box.join(signed.file().as_str()),
            signature: drop_box.join(signed.signature().as_str()),
        });
    }
    Ok(wanted)
}

/// Whether a file and its signature are there and good.
fn is_good(file: &Wanted<'_>, signers: &Signers<'_>) -> anyhow::Result<bool> {
    let unreadable = || format!("cannot read `{}`", file.place);
    let data = match File::open(&file.place) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(unreadable),
    };
    if data.metadata().with_context(unreadable)?.len() != file.entry.size {
        return Ok(false);
    }
    let Some(text) = files::read(&file.signature, MAX_SIGNATURE).with_context(unreadable)? else {
        return Ok(false);
    };
    let verified = signers.verify_reader(data, &text);
    Ok(verified.is_ok_and(|digest| *digest == file.entry.checksum))
}

/// Checks a file that was just fetched: its digest was enforced while it came in.
fn verify(file: &Wanted<'_>, signers: &Signers<'_>) -> Result<(), Failure> {
    let name = &file.place;
    let text = files::read(&file.signature, MAX_SIGNATURE)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("cannot read `{}`", file.signature))?;
    let data = File::open(name).with_context(|| format!("cannot read `{name}`"))?;
    match signers.verify_reader(data, &text) {
        Ok(digest) if *digest == file.entry.checksum => Ok(()),
        Ok(digest) => {
            files::remove(name)?;
            let want = file.entry.checksum;
            Err(anyhow!("`{name}` has checksum {digest} on the disk, the index says {want}").into())
        }
        Err(error) => {
            files::remove(&file.signature)?;
            Err(unsigned(file, error))
        }
    }
}

fn unsigned(file: &Wanted<'_>, error: VerifyError) -> Failure {
    let what = format!("`{}` has no good signature", file.entry.path.relative());
    Failure::Stale(KeyringType::ImageSigning, anyhow!(error).context(what))
}

/// Refuses before the first byte what cannot end well.
fn room(directory: &Utf8Path, missing: &[&Wanted<'_>]) -> anyhow::Result<()> {
    let mut needed: u64 = 0;
    for file in missing {
        // What is there of it, under its own or its temporary name, is used or overwritten.
        let part = Utf8PathBuf::from(format!("{}.part", file.place));
        let there = [&file.place, &part]
            .into_iter()
            .filter_map(|path| path.metadata().ok())
            .map(|metadata| metadata.len())
            .max();
        needed += file.entry.size.saturating_sub(there.unwrap_or(0));
    }
    if needed == 0 {
        return Ok(());
    }
    let available = files::available(directory)
        .with_context(|| format!("cannot tell the free space of `{directory}`"))?;
    let needed = needed + SPARE;
    if needed > available {
        bail!(NoRoom { directory: directory.to_owned(), needed, available });
    }
    Ok(())
}

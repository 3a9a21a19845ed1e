//! From a route to files that the upgrader may apply (client spec, section 9.7).
//!
//! A file is fetched under another name, checked for size and digest while it is written, and
//! gets its own name only then. What is there already counts by its content: a signature that
//! verifies over bytes with the right digest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};

use anyhow::{Context, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use system_image_durable as durable;
use system_image_fetch::{FetchError, How, Request, Size as FileSize};
use system_image_formats::command::SignedFile;
use system_image_formats::config::ClientConfig;
use system_image_formats::hash::Hasher;
use system_image_formats::index::FileEntry;
use system_image_formats::keyring::KeyringType;
use system_image_report::Size;
use system_image_trust::{Chain, Signers, VerifyError};

use crate::files;
use crate::handover::{self, COMMAND_FILE, PARTIAL};
use crate::log::Log;
use crate::server::{MAX_SIGNATURE, Server};
use crate::session::Failure;
use crate::transfer::{Control, Event, ManagerError, OnEvent, Order, Way, unless_canceled};

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

impl NoRoom {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> String {
        let missing = Size(self.needed - self.available);
        format!("free {missing} there; nothing was downloaded")
    }
}

/// The index gives a file a name that is taken.
#[derive(Debug, thiserror::Error)]
#[error("a file of the update cannot be called `{0}` beside the others")]
pub struct BadName(String);

impl BadName {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> &'static str {
        "its publisher must publish it under another name"
    }
}

/// A file of the update and where it goes.
#[derive(Clone, Debug)]
struct Wanted<'a> {
    entry: &'a FileEntry,
    signed: SignedFile,
    place: Utf8PathBuf,
    signature: Utf8PathBuf,
}

/// What is there of a wanted file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    /// All of it, with a good signature.
    All,
    /// The right content, without a good signature.
    Content,
    /// Something else, of so many bytes, or nothing.
    Other(u64),
}

/// How files come into the drop box.
#[derive(Debug)]
pub struct Fetch<'a> {
    /// Where from.
    pub server: &'a Server,
    /// Who may sign them.
    pub chain: &'a Chain,
    /// The drop box and the names that are taken in it.
    pub config: &'a ClientConfig,
    /// What brings payloads.
    pub way: &'a Way,
    /// Whether the settings allow mobile data.
    pub mobile_data: bool,
    /// What is wanted meanwhile.
    pub control: Control,
    /// Where to tell what happens.
    pub log: &'a Log,
}

/// Fetches what is missing of these files into the drop box. Afterwards each of them is there,
/// with the digest of the index and a good signature.
pub async fn fetch(
    what: Fetch<'_>,
    files: &[FileEntry],
    on_event: OnEvent<'_>,
) -> Result<(), Failure> {
    let Fetch {
        server,
        chain,
        config,
        way,
        mobile_data,
        control,
        log,
    } = what;
    let drop_box = &config.cache_partition;
    files::make_directory(drop_box)?;
    let signers = chain.index_signers()?;
    let mut missing = Vec::new();
    for file in wanted(files, config)? {
        match there(&file, &signers)? {
            There::All => {}
            found => missing.push((file, found)),
        }
    }
    check_room(drop_box, &missing)?;
    // Nothing of an update that was prepared before is touched until these are there: what no key
    // may sign is not worth its payload.
    let mut signatures = Vec::new();
    for (file, _) in &missing {
        let url = server.payload_url(&file.entry.signature);
        let fetched = async {
            let text = server.fetcher.fetch_small(&url, MAX_SIGNATURE).await;
            text.with_context(|| format!("cannot fetch `{}`", file.entry.signature.relative()))
        };
        let text = unless_canceled(control.clone(), fetched).await?;
        let _ = signers
            .verifier(&text)
            .map_err(|error| unsigned(file, error))?;
        signatures.push(text);
    }
    let concerned = |name: &_| missing.iter().any(|(file, _)| file.signed.file() == name);
    handover::retract(drop_box, concerned, log)?;
    for ((file, found), text) in missing.iter().zip(signatures) {
        if let There::Other(_) = found {
            let failed = || format!("cannot remove `{}`", file.place);
            durable::remove(&file.place).with_context(failed)?;
        }
        files::replace(&file.signature, &text)?;
    }

    let lacking = missing
        .iter()
        .filter(|(_, found)| *found != There::Content)
        .map(|(file, _)| file);
    let requests: Vec<_> = lacking
        .map(|file| Request {
            url: server.payload_url(&file.entry.path),
            destination: file.place.clone(),
            size: FileSize::Exactly(file.entry.size),
            digest: Some(file.entry.checksum.into()),
            how: How::default(),
        })
        .collect();
    if !requests.is_empty() {
        log.info(&format!(
            "Requesting group download: {} files",
            requests.len()
        ));
        let total = requests
            .iter()
            .map(|request| match request.size {
                FileSize::Exactly(size) | FileSize::AtMost(size) => size,
            })
            .sum();
        on_event(Event::Started(total));
        let order = Order {
            server,
            requests: &requests,
            mobile_data,
            log,
        };
        bring(way, order, &control, on_event)
            .await
            .context("cannot download the update")?;
    }
    control.check()?;
    for (file, _) in &missing {
        verify(file, &signers)?;
    }
    log.info(&format!("all files available in {drop_box}"));
    Ok(())
}

/// Brings the files; one that comes damaged is fetched once more.
async fn bring(
    way: &Way,
    order: Order<'_>,
    control: &Control,
    on_event: OnEvent<'_>,
) -> anyhow::Result<()> {
    let brought = way.bring(order, control.clone(), on_event).await;
    match brought {
        Err(error) if is_damaged(&error) => {
            let log = order.log;
            log.error(&format!("{error:#}; fetching it once more"));
            way.bring(order, control.clone(), on_event).await
        }
        brought => brought,
    }
}

/// Whether a file came with other bytes than it must have.
pub fn is_damaged(error: &anyhow::Error) -> bool {
    let damaged = |cause: &(dyn std::error::Error + 'static)| {
        let here = matches!(cause.downcast_ref(), Some(FetchError::Checksum { .. }));
        here || matches!(cause.downcast_ref(), Some(ManagerError::Damaged { .. }))
    };
    error.chain().any(damaged)
}

/// The files and where they go. No two of them, nor anything else that the client writes into the
/// drop box, share a name.
fn wanted<'a>(files: &'a [FileEntry], config: &ClientConfig) -> anyhow::Result<Vec<Wanted<'a>>> {
    let mut taken = BTreeSet::new();
    for name in handover::keyring_names(&config.gpg)? {
        let signed = SignedFile::of(name)?;
        taken.extend([signed.file().clone(), signed.signature().clone()]);
    }
    let mut wanted = Vec::new();
    for entry in files {
        let signed = SignedFile::of(entry.path.file_name()?)?;
        let name = signed.file().as_str();
        let ours = name == COMMAND_FILE || PARTIAL.iter().any(|suffix| name.ends_with(suffix));
        let news = [signed.file(), signed.signature()];
        if ours || !news.into_iter().all(|name| taken.insert(name.clone())) {
            bail!(BadName(name.to_owned()));
        }
        wanted.push(Wanted {
            entry,
            place: config.cache_partition.join(name),
            signature: config.cache_partition.join(signed.signature().as_str()),
            signed,
        });
    }
    Ok(wanted)
}

/// Looks what is there of a file: its content says it.
fn there(file: &Wanted<'_>, signers: &Signers<'_>) -> anyhow::Result<There> {
    let unreadable = || format!("cannot read `{}`", file.place);
    let mut data = match File::open(&file.place) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Other(0)),
        Err(error) => return Err(error).with_context(unreadable),
    };
    let size = data.metadata().with_context(unreadable)?.len();
    if size != file.entry.size {
        return Ok(There::Other(size));
    }
    let text = durable::read(&file.signature, MAX_SIGNATURE).with_context(unreadable)?;
    if let Some(Ok(digest)) = text.map(|text| signers.verify_reader(&data, &text)) {
        let good = *digest == file.entry.checksum;
        return Ok(if good { There::All } else { There::Other(size) });
    }
    let mut hasher = Hasher::default();
    data.rewind()
        .and_then(|()| io::copy(&mut data, &mut hasher))
        .with_context(unreadable)?;
    let good = hasher.finish() == file.entry.checksum;
    Ok(if good {
        There::Content
    } else {
        There::Other(size)
    })
}

/// Checks a file that was just fetched, whoever has brought it.
fn verify(file: &Wanted<'_>, signers: &Signers<'_>) -> Result<(), Failure> {
    let name = &file.place;
    let text = durable::read(&file.signature, MAX_SIGNATURE)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("cannot read `{}`", file.signature))?;
    let data = File::open(name).with_context(|| format!("cannot read `{name}`"))?;
    match signers.verify_reader(data, &text) {
        Ok(digest) if *digest == file.entry.checksum => Ok(()),
        Ok(digest) => {
            durable::remove(name)?;
            let wrong = FetchError::Checksum {
                destination: name.clone(),
                want: file.entry.checksum.into(),
                got: (*digest).into(),
            };
            let text = format!("`{name}` on the disk is not what the index says");
            Err(anyhow!(wrong).context(text).into())
        }
        Err(error) => {
            durable::remove(&file.signature)?;
            Err(unsigned(file, error))
        }
    }
}

fn unsigned(file: &Wanted<'_>, error: VerifyError) -> Failure {
    let what = format!("`{}` has no good signature", file.entry.path.relative());
    Failure::Stale(KeyringType::ImageSigning, anyhow!(error).context(what))
}

/// Room that an update needs beside what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Where.
    pub directory: Utf8PathBuf,
    /// How many bytes.
    pub needed: u64,
    /// How many are free.
    pub available: u64,
}

/// What fetching these files would take: bytes to download, and room.
pub fn foresee(
    chain: &Chain,
    files: &[FileEntry],
    config: &ClientConfig,
) -> anyhow::Result<(u64, Room)> {
    let drop_box = &config.cache_partition;
    files::make_directory(drop_box)?;
    let signers = chain.index_signers()?;
    let (mut missing, mut download) = (Vec::new(), 0u64);
    for file in wanted(files, config)? {
        let found = there(&file, &signers)?;
        if let There::Other(_) = found {
            download = download.saturating_add(file.entry.size);
        }
        missing.push((file, found));
    }
    Ok((download, room(drop_box, &missing)?))
}

/// Refuses before the first byte what cannot end well.
fn check_room(directory: &Utf8Path, missing: &[(Wanted<'_>, There)]) -> anyhow::Result<()> {
    let Room {
        directory,
        needed,
        available,
    } = room(directory, missing)?;
    if needed > available {
        bail!(NoRoom {
            directory,
            needed,
            available
        });
    }
    Ok(())
}

fn room(directory: &Utf8Path, missing: &[(Wanted<'_>, There)]) -> anyhow::Result<Room> {
    let (mut needed, mut reclaimed) = (0u64, 0u64);
    for (file, found) in missing {
        if let There::Other(size) = found {
            let part = format!("{}.part", file.place);
            let part = Utf8PathBuf::from(part)
                .metadata()
                .map_or(0, |part| part.len());
            needed = needed.saturating_add(file.entry.size);
            reclaimed = reclaimed.saturating_add(*size).saturating_add(part);
        }
    }
    let available = files::available(directory)
        .with_context(|| format!("cannot tell the free space of `{directory}`"))?;
    if needed > 0 {
        needed = needed.saturating_add(SPARE).saturating_sub(reclaimed);
    }
    Ok(Room {
        directory: directory.to_owned(),
        needed,
        available,
    })
}

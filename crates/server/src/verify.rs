//! Checks a whole tree: every signature, every reference, every rule that readers insist on (server
//! spec, sections 20 and 24).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::index::{FileEntry, Image, Index};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::version::Percentage;
use system_image_trust::{Now, Signers};

use crate::part::is_version_file;
use crate::published::{MAX_SIGNATURE, Published, channels_path};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Days before its end from which a keyring is warned of.
const SOON: i64 = 30;

/// What was checked and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Channels.
    pub channels: usize,
    /// Devices of all channels.
    pub devices: usize,
    /// Images of all indexes.
    pub images: usize,
    /// Different files that indexes name.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong.
    pub errors: Vec<Problem>,
    /// What may become wrong, or looks odd.
    pub warnings: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, or the channel and device.
    pub at: String,
    /// What.
    pub what: String,
}

/// One device's index, or what became of it.
struct Seen {
    images: usize,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    files: Vec<(FileEntry, bool)>,
}

/// Checks the tree. `deep` reads every payload, checks its digest and signature.
pub fn verify(tree: &Published, deep: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let channels = match tree.channels() {
        Ok(channels) => channels,
        Err(error) => {
            report.error(channels_path().relative(), format!("{error:#}"));
            return Ok(report);
        }
    };
    keyrings(tree, &mut report)?;
    report.channels = channels.0.len();
    let mut todo = Vec::new();
    let mut indexes = BTreeSet::new();
    for (name, channel) in &channels.0 {
        report.devices += channel.devices.len();
        if channel.devices.is_empty() {
            report.warn(name.as_str(), "it has no device".to_owned());
        }
        for target in [&channel.alias, &channel.redirect].into_iter().flatten() {
            if channels.get(target).is_none() {
                report.error(
                    name.as_str(),
                    format!("it follows `{target}`, which is gone"),
                );
            }
        }
        for (device, entry) in &channel.devices {
            if indexes.insert(entry.index.clone()) {
                todo.push((name, device, entry));
            }
        }
    }
    let seen = in_parallel(&todo, |(channel, device, entry)| {
        check_device(tree, channel, device, entry)
    });
    let mut files: BTreeMap<TreePath, FileEntry> = BTreeMap::new();
    for seen in seen {
        report.images += seen.images;
        report.errors.extend(seen.errors);
        report.warnings.extend(seen.warnings);
        for (file, own_keyring) in seen.files {
            // Those that a device's key may have signed were checked with it.
            if !own_keyring {
                files.entry(file.path.clone()).or_insert(file);
            }
        }
    }
    report.files = files.len();
    report.bytes = files.values().map(|file| file.size).sum();
    let files: Vec<_> = files.into_values().collect();
    let problems = in_parallel(&files, |file| check_file(tree, &tree.signers(), file, deep));
    report.errors.extend(problems.into_iter().flatten());
    report.errors.sort();
    report.warnings.sort();
    Ok(report)
}

impl Report {
    fn error(&mut self, at: &str, what: String) {
        self.errors.push(Problem {
            at: at.to_owned(),
            what,
        });
    }

    fn warn(&mut self, at: &str, what: String) {
        self.warnings.push(Problem {
            at: at.to_owned(),
            what,
        });
    }
}

/// Does the same with each item, on all cores; the results come in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    let result = work(item);
                    done.lock().expect("no worker panics").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The keyrings that devices fetch.
fn keyrings(tree: &Published, report: &mut Report) -> anyhow::Result<()> {
    let kinds = [
        KeyringType::ArchiveMaster,
        KeyringType::ImageMaster,
        KeyringType::ImageSigning,
    ];
    for kind in kinds {
        let path: TreePath = format!("/gpg/{kind}.tar.xz").parse()?;
        for path in [path.with_suffix(".asc")?, path.clone()] {
            if tree.store().size(&path)?.is_none() {
                report.error(path.relative(), "it is missing".to_owned());
            }
        }
        let Some(bytes) = tree.store().read(&path, 4 << 20)? else {
            continue;
        };
        let bytes = system_image_trust::Verified::trust_unsigned_for_testing(bytes);
        match system_image_trust::Keyring::open(&bytes) {
            Err(error) => report.error(path.relative(), error.to_string()),
            Ok(keyring) => {
                if keyring.info.kind != kind {
                    report.error(path.relative(), format!("it is a {}", keyring.info.kind));
                }
                if let Some(expiry) = keyring.info.expiry {
                    let days = (expiry - tree.now()) / DAY;
                    if expiry <= tree.now() {
                        report.error(path.relative(), "it has expired".to_owned());
                    } else if days < SOON {
                        report.warn(path.relative(), format!("it expires in {days} days"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn check_device(
    tree: &Published,
    channel: &ChannelName,
    device: &DeviceName,
    entry: &DeviceEntry,
) -> Seen {
    let mut seen = Seen {
        images: 0,
        errors: Vec::new(),
        warnings: Vec::new(),
        files: Vec::new(),
    };
    let at = format!("{channel} {device}");
    let problem = |what: String| Problem {
        at: at.clone(),
        what,
    };
    let own = match tree.device_keyring(entry) {
        Ok(own) => own,
        Err(error) => {
            seen.errors.push(problem(format!("{error:#}")));
            return seen;
        }
    };
    if let Some(own) = &own {
        let now = Now::from_clock(tree.now());
        if let Err(error) = own.check(KeyringType::DeviceSigning, device, now) {
            seen.errors.push(problem(format!("its keyring: {error}")));
        }
    }
    let index = match tree.index(entry) {
        Ok(Some(index)) => index,
        Ok(None) => {
            seen.errors
                .push(problem(format!("`{}` is missing", entry.index)));
            return seen;
        }
        Err(error) => {
            seen.errors.push(problem(format!("{error:#}")));
            return seen;
        }
    };
    seen.images = index.images.len();
    if index.images.is_empty() {
        seen.warnings.push(problem("it has no image".to_owned()));
    }
    seen.errors.extend(rules(&index).into_iter().map(problem));
    let mut files = BTreeSet::new();
    for file in index.images.into_iter().flat_map(|image| image.files) {
        if files.insert(file.path.clone()) {
            seen.files.push((file, own.is_some()));
        }
    }
    if let Some(own) = &own {
        // Either key may have signed them.
        let signers = Signers::new([&own.certificates], Now::from_clock(tree.now()));
        for (file, _) in &seen.files {
            let alone = check_file(tree, &tree.signers(), file, false);
            if alone.is_some() {
                seen.errors.extend(check_file(tree, &signers, file, false));
            }
        }
    }
    seen
}

/// What the consumers insist on.
fn rules(index: &Index) -> Vec<String> {
    let mut wrong = Vec::new();
    let newest = index.newest();
    let mut seen = BTreeSet::new();
    for image in &index.images {
        let name = match image.kind.base() {
            None => format!("full image {}", image.version),
            Some(base) => format!("delta {base} to {}", image.version),
        };
        if !seen.insert((image.version, image.kind.base())) {
            wrong.push(format!("{name} is there twice"));
        }
        if !image.version.is_classic() || image.kind.base().is_some_and(|base| !base.is_classic()) {
            wrong.push(format!("{name} has a number that old clients cannot read"));
        }
        if image.phased != Percentage::ALL && Some(image.version) != newest {
            wrong.push(format!("{name} is phased, and not the newest"));
        }
        if image.files.is_empty() {
            wrong.push(format!("{name} has no file"));
        }
        wrong.extend(
            names(image)
                .into_iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    wrong
}

fn names(image: &Image) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for file in &image.files {
        let name = file.path.relative().rsplit('/').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            wrong.push(format!("`{name}` has a blank in its name"));
        }
        if !names.insert(name) {
            wrong.push(format!("two files are called `{name}`"));
        }
    }
    if image.is_full() && !image.files.iter().any(is_version_file) {
        wrong.push("it has no version file".to_owned());
    }
    wrong
}

fn check_file(
    tree: &Published,
    signers: &Signers<'_>,
    file: &FileEntry,
    deep: bool,
) -> Option<Problem> {
    let problem = |what: String| {
        Some(Problem {
            at: file.path.relative().to_owned(),
            what,
        })
    };
    let failed = |error: system_image_store::StoreError| {
        problem(format!("{:#}", anyhow::Error::from(error)))
    };
    match tree.store().size(&file.path) {
        Ok(None) => return problem("it is missing".to_owned()),
        Ok(Some(size)) if size != file.size => {
            return problem(format!("it has {size} bytes, its index says {}", file.size));
        }
        Ok(Some(_)) => {}
        Err(error) => return failed(error),
    }
    if !deep {
        return match tree.store().size(&file.signature) {
            Ok(Some(_)) => None,
            Ok(None) => problem("its signature is missing".to_owned()),
            Err(error) => failed(error),
        };
    }
    let signature = match tree.store().read(&file.signature, MAX_SIGNATURE) {
        Ok(Some(signature)) => signature,
        Ok(None) => return problem("its signature is missing".to_owned()),
        Err(error) => return failed(error),
    };
    let data = match tree.store().open(&file.path) {
        Ok(Some(data)) => data,
        Ok(None) => return problem("it is missing".to_owned()),
        Err(error) => return failed(error),
    };
    match signers.verify_reader(data, &signature) {
        Err(error) => problem(error.to_string()),
        Ok(digest) if *digest != file.checksum => problem(format!(
            "its checksum is {}, its index says {}",
            *digest, file.checksum
        )),
        Ok(_) => None,
    }
}

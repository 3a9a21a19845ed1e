//! Checks a whole tree: every signature, every reference, every rule that readers insist on (server
//! spec, sections 20 and 24).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;

use serde::Serialize;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::index::{FileEntry, Image};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{DeviceName, TreePath};
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_trust::{Keyring, Now, Signers};

use crate::part::is_version_file;
use crate::published::{DAY, MAX_SIGNATURE, Published, channels_path};
use system_image_delta_build::parallel::on_all_cores;

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

/// What became of one device.
#[derive(Default)]
struct Seen {
    images: usize,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Files whose content is still to be checked.
    files: Vec<FileEntry>,
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
    let files = Mutex::new(Files::default());
    let inspector = Inspector { tree, deep, files };
    let seen = on_all_cores(&todo, |(channel, device, entry)| {
        inspector.device(&format!("{channel} {device}"), device, entry)
    });
    let mut unread = Vec::new();
    for seen in seen {
        report.images += seen.images;
        report.errors.extend(seen.errors);
        report.warnings.extend(seen.warnings);
        unread.extend(seen.files);
    }
    let files = inspector.files.into_inner().expect("no worker panics");
    (report.files, report.bytes) = (files.known.len(), files.bytes);
    let problems = on_all_cores(&unread, |file| {
        check_file(tree, &tree.signers(), file, deep)
    });
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

/// The files of the tree that some worker takes or took care of.
#[derive(Default)]
struct Files {
    /// Of each file what its index says of it, as 64 bits: a large tree has hundreds of thousands,
    /// most of them named by many indexes. The hash is keyed at random, so no one can make two
    /// files look like one, and by chance that happens in one run out of a billion.
    known: HashSet<u64>,
    hasher: RandomState,
    bytes: u64,
}

impl Files {
    /// Leaves those that nobody has taken yet.
    fn take(&mut self, files: &mut Vec<FileEntry>) {
        files.retain(|file| {
            let FileEntry {
                path,
                signature,
                checksum,
                size,
                ..
            } = file;
            let is_new =
                (self.known).insert(self.hasher.hash_one((path, signature, checksum, size)));
            self.bytes += if is_new { *size } else { 0 };
            is_new
        });
    }
}

/// Looks at one device after another, on all cores.
struct Inspector<'a> {
    tree: &'a Published,
    deep: bool,
    files: Mutex<Files>,
}

impl Inspector<'_> {
    fn device(&self, at: &str, device: &DeviceName, entry: &DeviceEntry) -> Seen {
        let mut seen = Seen::default();
        let problem = |what: String| Problem {
            at: at.to_owned(),
            what,
        };
        let own = match self.tree.device_keyring(entry) {
            Ok(own) => own,
            Err(error) => {
                seen.errors.push(problem(format!("{error:#}")));
                return seen;
            }
        };
        if let Some(own) = &own {
            let now = Now::from_clock(self.tree.now());
            if let Err(error) = own.check(KeyringType::DeviceSigning, device, now) {
                seen.errors.push(problem(format!("its keyring: {error}")));
            }
        }
        let mut rules = Rules::default();
        let mut files = Vec::new();
        let visited = self.tree.visit_images(entry, |image| {
            rules.look_at(&image);
            files.extend(image.named().map(Cow::into_owned));
        });
        match visited {
            Ok(Some(_)) => {}
            Ok(None) => {
                let missing = format!("`{}` is missing", entry.index);
                seen.errors.push(problem(missing));
                return seen;
            }
            Err(error) => {
                seen.errors.push(problem(format!("{error:#}")));
                return seen;
            }
        }
        seen.images = rules.images;
        if rules.images == 0 {
            seen.warnings.push(problem("it has no image".to_owned()));
        }
        seen.errors.extend(rules.wrong().into_iter().map(problem));
        match own {
            // Checked here and now, because the same file of another device is held to more.
            Some(own) => seen.errors.extend(self.files_of_either(&own, files)),
            None => self.files(files, &mut seen),
        }
        seen
    }

    /// Checks the files that no other device has, unless they are to be read: that is shared file by
    /// file.
    fn files(&self, mut files: Vec<FileEntry>, seen: &mut Seen) {
        self.files
            .lock()
            .expect("no worker panics")
            .take(&mut files);
        if self.deep {
            seen.files = files;
            return;
        }
        let signers = self.tree.signers();
        let problems = files
            .iter()
            .filter_map(|file| check_file(self.tree, &signers, file, false));
        seen.errors.extend(problems);
    }

    /// Checks the files of a device with a keyring of its own: either key may have signed them.
    fn files_of_either(&self, own: &Keyring, mut files: Vec<FileEntry>) -> Vec<Problem> {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files.dedup_by(|one, other| one.path == other.path);
        let signers = self.tree.signers_with(own);
        let check = |file| check_file(self.tree, &signers, file, self.deep);
        files.iter().filter_map(check).collect()
    }
}

/// What the consumers insist on, image by image.
#[derive(Default)]
struct Rules {
    images: usize,
    seen: BTreeSet<(ImageVersion, Option<ImageVersion>)>,
    newest: Option<ImageVersion>,
    /// Images that are not for all devices.
    phased: Vec<(ImageVersion, String)>,
    wrong: Vec<String>,
}

impl Rules {
    fn look_at(&mut self, image: &Image) {
        self.images += 1;
        let name = || match image.kind.base() {
            None => format!("full image {}", image.version),
            Some(base) => format!("delta {base} to {}", image.version),
        };
        let mut wrong = |what: String| self.wrong.push(format!("{}{what}", name()));
        if !self.seen.insert((image.version, image.kind.base())) {
            wrong(" is there twice".to_owned());
        }
        if !image.version.is_classic() || image.kind.base().is_some_and(|base| !base.is_classic()) {
            wrong(" has a number that old clients cannot read".to_owned());
        }
        if image.files.is_empty() {
            wrong(" has no file".to_owned());
        }
        for what in names(image) {
            wrong(format!(": {what}"));
        }
        if image.phased != Percentage::ALL {
            self.phased.push((image.version, name()));
        }
        self.newest = self.newest.max(Some(image.version));
    }

    /// What is wrong with all of them together.
    fn wrong(self) -> Vec<String> {
        let mut wrong = self.wrong;
        for (version, name) in self.phased {
            if Some(version) != self.newest {
                wrong.push(format!("{name} is phased, and not the newest"));
            }
        }
        wrong
    }
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

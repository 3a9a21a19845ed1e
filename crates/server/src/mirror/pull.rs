//! Copies another server's tree, verified from an archive-master keyring down.
//!
//! First come the files, then keyrings and indexes, `channels.json` last; a document and its
//! signature change in one step. So whoever reads the copy finds all that is named, whenever this
//! is stopped, and the next run goes on. The bytes are the other server's: no key is needed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use serde::Serialize;
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::checksum::Sha256;
use system_image_formats::index::{FileEntry, Index};
use system_image_formats::name::{DeviceName, TreePath};
use system_image_report::Progress;
use system_image_trust::Chain;

use super::payload::{self, Fetched, Have};
use super::place::Place;
use super::wanted::{LeftOut, Wanted};
use crate::gc::{self, Collected, Ground};
use crate::published::channels_path;
use crate::references::References;
use crate::remote::{Remote, Signed};
use system_image_delta_build::parallel;

/// How a copy is made.
#[derive(Clone, Debug)]
pub struct Pull {
    /// What is copied.
    pub wanted: Wanted,
    /// Files fetched at once.
    pub jobs: usize,
    /// Read every file of the copy, and fetch again what is damaged.
    pub deep: bool,
    /// Remove what no document of the copy has named for so many days.
    pub delete: Option<u32>,
    /// Tell only.
    pub dry_run: bool,
    /// The clock, in Unix seconds.
    pub now: i64,
}

/// What was copied, or in a dry run would have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// Files that were missing, different, or signed again.
    pub files: usize,
    /// Bytes that came over the network for them; in a dry run, their sizes.
    pub bytes: u64,
    /// Documents that changed, in the order in which they did.
    pub documents: Vec<String>,
    /// What did not succeed. Indexes that need it stay as they were, and so does `channels.json`.
    pub failed: Vec<Failed>,
    /// What the documents name and the copy has not.
    pub left_out: LeftOut,
    /// What was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collected: Option<Collected>,
}

/// A file or an index that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Its path.
    pub path: String,
    /// Why.
    pub error: String,
}

/// A file that is needed, and what there is of it.
struct Need {
    file: FileEntry,
    have: Have,
    chain: Arc<Chain>,
}

/// What an index needs before it may be seen.
struct Looked {
    entry: DeviceEntry,
    /// Files that are to be fetched; other indexes may name them too.
    needs: Vec<TreePath>,
    keyring: Option<Signed>,
    /// The new index, if it is another one.
    changed: Option<Kept>,
    left_out: usize,
}

/// Copies.
pub fn pull(remote: &Remote, place: &Place, pull: &Pull) -> anyhow::Result<Pulled> {
    let run = Run {
        remote,
        place,
        pull,
        spool: Spool::new(place)?,
        needs: Mutex::default(),
    };
    let (channels, list) = remote.channels()?;
    let (devices, left_out) = pull.wanted.devices(&channels)?;
    let mut pulled = Pulled {
        left_out,
        ..Pulled::default()
    };
    let mut looked = Vec::new();
    let found = parallel::each(pull.jobs, &devices, |(device, entry)| {
        let found = run.look(device, entry);
        found.map_err(|error| failed(&entry.index, &error))
    });
    for found in found {
        match found {
            Ok(found) => looked.push(found),
            Err(failed) => pulled.failed.push(failed),
        }
    }
    pulled.left_out.images = looked.iter().map(|one| one.left_out).sum();
    let late = run.fetch_all(&mut pulled);
    let lacking: BTreeSet<_> = pulled.failed.iter().map(|one| one.path.clone()).collect();
    looked.retain(|one| {
        let needs = one.needs.iter();
        !needs
            .map(TreePath::as_str)
            .any(|path| lacking.contains(path))
    });
    run.switch(&looked, late, &list, &mut pulled)?;
    if !pull.dry_run && pulled.failed.is_empty() {
        place.forget_downloads()?;
        if let Some(grace) = pull.delete {
            pulled.collected = Some(run.sweep(&channels, grace)?);
        }
    }
    Ok(pulled)
}

fn failed(path: &TreePath, error: &anyhow::Error) -> Failed {
    Failed {
        path: path.to_string(),
        error: format!("{error:#}"),
    }
}

/// One run.
struct Run<'a> {
    remote: &'a Remote,
    place: &'a Place,
    pull: &'a Pull,
    spool: Spool,
    /// What indexes name, and what there is of it unless that is all.
    needs: Mutex<BTreeMap<(TreePath, Sha256), Option<Need>>>,
}

impl Run<'_> {
    /// Finds out what an index needs.
    fn look(&self, device: &DeviceName, entry: &DeviceEntry) -> anyhow::Result<Looked> {
        let (chain, keyring) = self.remote.chain_of(device, entry)?;
        let chain = Arc::new(chain);
        let (index, signed) = self.remote.index(entry, &chain)?;
        let mut known = BTreeMap::new();
        for image in self
            .copied(entry, &chain)?
            .iter()
            .flat_map(|index| &index.images)
        {
            for file in image.named() {
                known.insert(file.path.clone(), file.checksum);
            }
        }
        let images = self.pull.wanted.images(&index);
        let mut needs = Vec::new();
        for file in images.iter().flat_map(|image| image.named()) {
            if self.needs(&file, &known, &chain)? {
                needs.push(file.path.clone());
            }
        }
        let changed = if self.place.has(&signed)? {
            None
        } else {
            Some(self.spool.keep(&signed)?)
        };
        Ok(Looked {
            entry: entry.clone(),
            needs,
            keyring,
            changed,
            left_out: index.images.len() - images.len(),
        })
    }

    /// The index that the copy has of a device, if it is in order.
    fn copied(&self, entry: &DeviceEntry, chain: &Chain) -> anyhow::Result<Option<Index>> {
        let Some((bytes, signature)) = self.place.document(&entry.index)? else {
            return Ok(None);
        };
        let verified = chain.index_signers()?.verify(bytes, &signature);
        Ok(verified.ok().and_then(|bytes| Index::parse(&bytes).ok()))
    }

    /// Whether a file has to be fetched.
    fn needs(
        &self,
        file: &FileEntry,
        known: &BTreeMap<TreePath, Sha256>,
        chain: &Arc<Chain>,
    ) -> anyhow::Result<bool> {
        let key = (file.path.clone(), file.checksum);
        if let Some(need) = self.locked().get(&key) {
            return Ok(need.is_some());
        }
        let signers = chain.index_signers()?;
        let have = payload::have(self.place.store(), file, known, self.pull.deep, &signers)?;
        let need = (have != Have::All).then(|| Need {
            file: file.clone(),
            have,
            chain: Arc::clone(chain),
        });
        let needed = need.is_some();
        self.locked().insert(key, need);
        Ok(needed)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<(TreePath, Sha256), Option<Need>>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what is needed. Files of new names are put at their places; those that replace a file
    /// that a visible index may name are returned.
    fn fetch_all(&self, pulled: &mut Pulled) -> Vec<Fetched> {
        let needs: Vec<_> = std::mem::take(&mut *self.locked())
            .into_values()
            .flatten()
            .collect();
        pulled.files = needs.len();
        let fetched = needs.iter().filter(|need| need.have != Have::Unsigned);
        let total = fetched.map(|need| need.file.size).sum();
        if self.pull.dry_run || needs.is_empty() {
            pulled.bytes = total;
            return Vec::new();
        }
        let what = format!("fetching {} files", needs.len());
        let progress = Mutex::new(Progress::new(what, total));
        let results = parallel::each(self.pull.jobs, &needs, |need| {
            let mut before = 0;
            let fetched = payload::fetch(
                self.remote,
                self.place,
                &need.file,
                need.have,
                &need.chain,
                &mut |received| {
                    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                    progress.add(received.saturating_sub(before));
                    before = received.max(before);
                },
            )?;
            let transferred = fetched.transferred;
            if need.have == Have::Other {
                return Ok((transferred, Some(fetched)));
            }
            fetched.publish(self.place.store())?;
            anyhow::Ok((transferred, None))
        });
        drop(progress);
        let mut late = Vec::new();
        for (need, result) in needs.iter().zip(results) {
            match result {
                Ok((transferred, fetched)) => {
                    pulled.bytes += transferred;
                    late.extend(fetched);
                }
                Err(error) => pulled.failed.push(failed(&need.file.path, &error)),
            }
        }
        late
    }

    /// Makes visible what changed: each step leaves a copy that is whole.
    fn switch(
        &self,
        looked: &[Looked],
        late: Vec<Fetched>,
        list: &Signed,
        pulled: &mut Pulled,
    ) -> anyhow::Result<()> {
        let mut show = |signed: &Signed| -> anyhow::Result<()> {
            if self.place.has(signed)? {
                return Ok(());
            }
            if !self.pull.dry_run {
                self.place.replace(signed)?;
            }
            pulled.documents.push(signed.path.relative().to_owned());
            Ok(())
        };
        show(&self.remote.archive_master()?)?;
        for keyring in self.remote.keyrings() {
            show(keyring)?;
        }
        for keyring in looked.iter().filter_map(|one| one.keyring.as_ref()) {
            show(keyring)?;
        }
        for fetched in late {
            fetched.publish(self.place.store())?;
        }
        for one in looked {
            if let Some(kept) = &one.changed {
                show(&self.spool.get(&one.entry.index, kept)?)?;
            }
        }
        if pulled.failed.is_empty() && !self.place.has(list)? {
            if !self.pull.dry_run {
                self.place.replace(list)?;
            }
            pulled.documents.push(list.path.relative().to_owned());
        }
        Ok(())
    }

    /// Removes what no document of the copy names any more. Indexes of an earlier run that wanted
    /// more still count, as long as `channels.json` names them.
    fn sweep(&self, channels: &Channels, grace: u32) -> anyhow::Result<Collected> {
        let mut references = References::default();
        references.document(&channels_path());
        let (wanted, _) = self.pull.wanted.devices(channels)?;
        let wanted: BTreeSet<_> = wanted.iter().map(|(_, entry)| &entry.index).collect();
        let all = channels.0.values().flat_map(|channel| &channel.devices);
        for (device, entry) in all {
            if self.place.document(&entry.index)?.is_none() {
                continue;
            }
            if let Some(keyring) = &entry.keyring {
                references.document(&keyring.path);
                references.file(&keyring.signature);
            }
            if !references.document(&entry.index) {
                continue;
            }
            let (chain, _) = self.remote.chain_of(device, entry)?;
            let index = self.copied(entry, &chain)?;
            let index = index.with_context(|| {
                let path = &entry.index;
                format!("`{path}` of the copy cannot be trusted any more; pull it, too")
            })?;
            if wanted.contains(&entry.index) {
                references.images(self.pull.wanted.images(&index));
            } else {
                references.images(&index.images);
            }
        }
        let ground = Ground {
            store: self.place.store(),
            references,
            signers: self.remote.chain().index_signers()?,
            note: self.place.note(self.pull.dry_run),
            now: self.pull.now,
        };
        let mut collected = gc::sweep(&ground, grace)?;
        collected.foreign.retain(|path| !Place::is_own(path));
        Ok(collected)
    }
}

/// Indexes that wait for their files, on disk: there may be thousands.
struct Spool(Mutex<File>);

/// Where an index and its signature are in the spool.
struct Kept {
    start: u64,
    bytes: usize,
    signature: usize,
}

impl Spool {
    fn new(place: &Place) -> anyhow::Result<Self> {
        let directory = place.downloads();
        let file = tempfile::tempfile_in(&directory);
        let file = file.with_context(|| format!("cannot make a file in `{directory}`"))?;
        Ok(Self(Mutex::new(file)))
    }

    fn keep(&self, signed: &Signed) -> anyhow::Result<Kept> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = file.seek(SeekFrom::End(0))?;
        file.write_all(&signed.bytes)
            .and_then(|()| file.write_all(&signed.signature))
            .context("cannot keep an index aside")?;
        Ok(Kept {
            start,
            bytes: signed.bytes.len(),
            signature: signed.signature.len(),
        })
    }

    fn get(&self, path: &TreePath, kept: &Kept) -> anyhow::Result<Signed> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; kept.bytes];
        let mut signature = vec![0; kept.signature];
        file.seek(SeekFrom::Start(kept.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .and_then(|()| file.read_exact(&mut signature))
            .map_err(|error| anyhow!(error).context("cannot read what was kept aside"))?;
        Ok(Signed {
            path: path.clone(),
            bytes,
            signature_path: path.with_suffix(".asc")?,
            signature,
        })
    }
}

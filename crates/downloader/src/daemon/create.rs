//! Makes downloads (specification, sections 2, 5, 10, 11, 12 and 15).

use std::collections::{BTreeMap, HashMap, HashSet};

use camino::Utf8PathBuf;
use system_image_bus::download::Family;
use system_image_fetch::Algorithm;
use url::Url;
use zbus::OwnedVariant;

use super::core::{Core, log_record};
use crate::job::caller::Caller;
use crate::job::download::{Download, File, Shape};
use crate::job::failure::Refusal;
use crate::job::machine::Machine;
use crate::job::metadata::{Metadata, key};
use crate::job::{ids, names};
use crate::transfer::finish::is_there;
use crate::transfer::local;

/// Downloads that are not over, of all callers, before no more are made.
const MAX_DOWNLOADS: usize = 10_000;

/// Files of a group.
const MAX_FILES: usize = 10_000;

/// Longest URL, in bytes.
const MAX_URL: usize = 2 << 20;

/// What a caller wants downloaded: the request on the wire.
pub(super) type Wanted = (
    String,
    String,
    String,
    HashMap<String, OwnedVariant>,
    HashMap<String, String>,
);

/// A group on the wire.
pub(super) type WantedGroup = (
    Vec<(String, String, String)>,
    String,
    bool,
    HashMap<String, OwnedVariant>,
    HashMap<String, String>,
);

impl Core {
    /// `createDownload`; returns the new one's number.
    pub(super) fn create(
        &mut self,
        caller: &Caller,
        family: Family,
        (url, hash, algorithm, metadata, headers): Wanted,
    ) -> Result<u64, Refusal> {
        let metadata = self.admit(caller, metadata)?;
        let data = local::data_url(&url).and_then(local::decode);
        let parsed = self.check_url(caller, &url)?;
        check_hash(&hash, &algorithm, &metadata)?;
        let local_path = metadata.local_path();
        if let Some(path) = local_path.as_deref().filter(|path| is_there(path)) {
            let text = format!("File already exists at: '{path}'");
            return Err(Refusal::Invalid(text));
        }
        let id = self.id(caller, &metadata)?;
        let file = if let Some(path) = local_path {
            self.exact(url, path, hash, algorithm)
        } else {
            let name = match data {
                Some(data) => format!("{id}.{}", data.suffix),
                None => names::from_url(parsed.path()).unwrap_or_else(ids::random),
            };
            let directory = self.directory(caller, family)?;
            let destination = self.free(&directory.join(name));
            File::new(url, destination, hash, algorithm)
        };
        let owner = owner(caller, &metadata);
        let download = self.download(family, Shape::Single, id, caller, owner, metadata, headers);
        Ok(self.add(Download {
            files: vec![file],
            ..download
        }))
    }

    /// `createMmsDownload`.
    pub(super) fn create_message(
        &mut self,
        caller: &Caller,
        family: Family,
        url: String,
        host: &str,
        port: i32,
    ) -> Result<u64, Refusal> {
        let mut metadata = self.admit(caller, HashMap::new())?;
        metadata.set(key::SHOWN, false);
        if !host.is_empty() {
            metadata.set(key::PROXY, format!("http://{host}:{port}"));
        }
        let parsed = self.check_url(caller, &url)?;
        let id = self.free_id(caller.confined.as_deref());
        let name = names::from_url(parsed.path()).unwrap_or_else(ids::random);
        let directory = self.directory(caller, family)?;
        let destination = self.free(&directory.join(name));
        let file = File::new(url, destination, String::new(), String::new());
        let owner = owner(caller, &metadata);
        let none = HashMap::new();
        let download = self.download(family, Shape::Message, id, caller, owner, metadata, none);
        Ok(self.add(Download {
            files: vec![file],
            ..download
        }))
    }

    /// `createDownloadGroup`.
    pub(super) fn create_group(
        &mut self,
        caller: &Caller,
        family: Family,
        (wanted, algorithm, mobile_data, metadata, headers): WantedGroup,
    ) -> Result<u64, Refusal> {
        let metadata = self.admit(caller, metadata)?;
        if wanted.len() > MAX_FILES {
            return Err(Refusal::Limits(format!("more than {MAX_FILES} files")));
        }
        let mut places = HashSet::new();
        let mut files = Vec::with_capacity(wanted.len());
        for (url, path, hash) in wanted {
            self.check_url(caller, &url)?;
            check_hash(&hash, &algorithm, &metadata)?;
            let path = self.allowed(caller, family, path.into())?;
            if !places.insert(path.clone()) {
                return Err(Refusal::Invalid(format!(
                    "Duplicated local path passed: {path}"
                )));
            }
            if is_there(&path) {
                let text = format!("File already exists at: '{path}'");
                return Err(Refusal::Invalid(text));
            }
            files.push(self.exact(url, path, hash, algorithm.clone()));
        }
        let id = self.id(caller, &metadata)?;
        let owner = owner(caller, &metadata);
        let download = self.download(family, Shape::Group, id, caller, owner, metadata, headers);
        Ok(self.add(Download {
            mobile_data,
            files,
            ..download
        }))
    }

    /// What every kind has in common, before it has files.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a download is made of; no two belong together"
    )]
    fn download(
        &mut self,
        family: Family,
        shape: Shape,
        id: String,
        caller: &Caller,
        owner: String,
        metadata: Metadata,
        headers: HashMap<String, String>,
    ) -> Download {
        Download {
            number: self.number(),
            id,
            family,
            owner,
            confined: caller.confined.clone(),
            metadata,
            headers: BTreeMap::from_iter(headers),
            throttle: self.engine.limit(),
            mobile_data: self.default_mobile_data,
            machine: Machine::new(shape.kind()),
            ran: false,
            shape,
            files: Vec::new(),
            held: None,
            failure: None,
        }
    }

    /// Records it, puts it on the bus, and tells.
    fn add(&mut self, download: Download) -> u64 {
        let number = download.number;
        if let Err(error) = self.records.save(&download) {
            log_record(&error);
        }
        self.outbox.created(&download.tail());
        self.insert(download);
        number
    }

    /// What a caller says of its download, without what it may not say.
    fn admit(
        &self,
        caller: &Caller,
        metadata: HashMap<String, OwnedVariant>,
    ) -> Result<Metadata, Refusal> {
        if self.downloads.len() >= MAX_DOWNLOADS {
            let text = format!("there are {MAX_DOWNLOADS} downloads already");
            return Err(Refusal::Limits(text));
        }
        Self::metadata(caller.confined.is_some(), metadata)
    }

    /// Metadata without what a confined caller may not say.
    pub(super) fn metadata(
        confined: bool,
        metadata: HashMap<String, OwnedVariant>,
    ) -> Result<Metadata, Refusal> {
        let metadata = Metadata::new(metadata);
        let mut metadata = metadata.map_err(|error| Refusal::Invalid(error.to_string()))?;
        if confined {
            metadata.remove(key::LOCAL_PATH);
            metadata.remove(key::CLICK_PACKAGE);
        }
        Ok(metadata)
    }

    fn id(&self, caller: &Caller, metadata: &Metadata) -> Result<String, Refusal> {
        let confined = caller.confined.as_deref();
        let wanted = metadata.text(key::OBJECT_PATH);
        if wanted.is_empty() {
            return Ok(self.free_id(confined));
        }
        if !ids::is_element(wanted) || self.is_used(wanted) {
            return Err(Refusal::id(wanted));
        }
        Ok(wanted.to_owned())
    }

    /// Whether an id names another download, of whomever: `getDownloadState` knows ids only.
    fn is_used(&self, id: &str) -> bool {
        self.downloads.values().any(|download| download.id == id)
    }

    fn check_url(&self, caller: &Caller, url: &str) -> Result<Url, Refusal> {
        if url.len() > MAX_URL {
            return Err(Refusal::url(""));
        }
        let parsed = Url::parse(url).map_err(|_| Refusal::url(""))?;
        // Reading a file in another's name would show it what it may not see.
        if parsed.scheme() == "file" && !caller.is_equal_to(self.host.user) {
            let text = "Only who may read a file may have it downloaded";
            return Err(Refusal::Denied(text.to_owned()));
        }
        Ok(parsed)
    }

    /// The place for a file whose caller has said where: a confined one chooses a name only.
    fn allowed(
        &self,
        caller: &Caller,
        family: Family,
        path: Utf8PathBuf,
    ) -> Result<Utf8PathBuf, Refusal> {
        if caller.confined.is_none() {
            return Ok(path);
        }
        let name = path.file_name().unwrap_or("file");
        let place = self.directory(caller, family)?.join(name);
        Ok(self.free(&place))
    }

    /// A file whose place is given. The name while it is under way is one that nobody has.
    fn exact(&self, url: String, path: Utf8PathBuf, hash: String, algorithm: String) -> File {
        let stage = self.free_stage(&path);
        File {
            stage,
            exact: true,
            ..File::new(url, path, hash, algorithm)
        }
    }

    /// The directory for a caller's files, which is made if it is missing.
    fn directory(&self, caller: &Caller, family: Family) -> Result<Utf8PathBuf, Refusal> {
        let directory = self.host.home.directory(family, caller.confined.as_deref());
        match std::fs::create_dir_all(&directory) {
            Ok(()) => Ok(directory),
            Err(_) => Err(Refusal::not_writable(&directory)),
        }
    }
}

/// Whose a download is.
fn owner(caller: &Caller, metadata: &Metadata) -> String {
    match &caller.confined {
        Some(label) => label.clone(),
        None => metadata.text(key::APP_ID).to_owned(),
    }
}

/// An algorithm matters only when there is a digest.
fn check_hash(hash: &str, algorithm: &str, metadata: &Metadata) -> Result<(), Refusal> {
    if hash.is_empty() {
        return Ok(());
    }
    if !algorithm.is_empty() && algorithm.parse::<Algorithm>().is_err() {
        return Err(Refusal::algorithm(algorithm));
    }
    if metadata.truth(key::DEFLATE) {
        let text = format!("Downloads that are set to be deflated cannot have a hash: '{hash}'");
        return Err(Refusal::Invalid(text));
    }
    Ok(())
}

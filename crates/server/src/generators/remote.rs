//! `remote-system-image`: a file of another server, verified as a device would (server spec, section
//! 13.7, without what section 21, 22 says of it).

use std::fs;

use anyhow::{Context, anyhow, bail, ensure};
use camino::Utf8PathBuf;
use system_image_fetch::Size;
use system_image_formats::channels::Channels;
use system_image_formats::index::{FileEntry, Index};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_trust::{Chain, Now};

use super::{Job, Produced, known, store};
use crate::android;
use crate::bases::fulls;
use crate::config::Source;
use crate::part::Part;
use crate::pool;
use crate::published::side_path;
use crate::web::Web;

/// Largest signature, keyring, list of channels, index and side file, in bytes.
const MAX_SIGNATURE: usize = 64 << 10;
const MAX_KEYRING: usize = 4 << 20;
const MAX_CHANNELS: usize = 64 << 20;
const MAX_INDEX: usize = 96 << 20;
const MAX_SIDE: usize = 16 << 20;

/// Another server and what may be believed of it.
struct Remote<'a> {
    job: Job<'a>,
    web: Web,
    url: &'a str,
    chain: Chain,
}

pub(super) fn produce(job: Job<'_>, source: &Source) -> anyhow::Result<Produced> {
    let Source::RemoteSystemImage {
        url,
        channel,
        prefix,
        device,
        keyring,
        trust,
    } = source
    else {
        bail!("it is no other server");
    };
    let device = device.as_ref().unwrap_or(job.device);
    let mut remote = Remote::open(job, url, device, trust.as_ref())?;
    let channels = remote.signed("/channels.json", MAX_CHANNELS)?;
    let signers = remote.chain.channel_signers()?;
    let channels = signers
        .verify(channels.0, &channels.1)
        .with_context(|| format!("`{url}/channels.json` cannot be trusted"))?;
    let channels = Channels::parse(&channels)
        .with_context(|| format!("`{url}/channels.json` cannot be used"))?;
    let entry = channels
        .get(channel)
        .and_then(|found| found.devices.get(device));
    let Some(entry) = entry else {
        return Ok(Produced::NotYet(format!(
            "`{url}` has no device `{device}` in a channel `{channel}`"
        )));
    };
    if let Some(paths) = &entry.keyring {
        let archive = remote.get(&paths.path, MAX_KEYRING)?;
        let signature = remote.get(&paths.signature, MAX_SIGNATURE)?;
        remote
            .chain
            .load_as(KeyringType::DeviceSigning, &archive, &signature)?;
    }
    let index = remote.signed(entry.index.as_str(), MAX_INDEX)?;
    let signers = remote.chain.index_signers()?;
    let at = || format!("`{url}{}`", entry.index);
    let index = signers
        .verify(index.0, &index.1)
        .with_context(|| format!("{} cannot be trusted", at()))?;
    let index = Index::parse(&index).with_context(|| format!("{} cannot be used", at()))?;
    let Some(newest) = fulls(&index).first().copied() else {
        return Ok(Produced::NotYet(format!("{} has no image", at())));
    };
    let parts = Part::of_image(newest);
    let Some(part) = parts.into_iter().find(|part| part.prefix() == prefix) else {
        return Ok(Produced::NotYet(format!(
            "version {} of {} has no file `{prefix}-…`",
            newest.version,
            at()
        )));
    };
    remote.take_over(&part.entry, keyring.as_deref())
}

impl<'a> Remote<'a> {
    /// Loads the other server's keyrings, each verified by the one above it, from the anchor that
    /// the operator has of it.
    fn open(
        job: Job<'a>,
        url: &'a str,
        device: &DeviceName,
        trust: Option<&Utf8PathBuf>,
    ) -> anyhow::Result<Self> {
        let root = job.tree.root();
        let host = url.split("://").nth(1).unwrap_or(url);
        let host = host.split(['/', ':']).next().unwrap_or(host);
        let place = match trust {
            Some(place) => root.path(place),
            None => root.directory().join(format!("etc/remotes/{host}.tar.xz")),
        };
        let anchor = fs::read(&place).with_context(|| {
            format!("the archive-master keyring of `{url}` is needed as `{place}`")
        })?;
        let now = Now::from_clock(job.tree.now());
        let chain = Chain::new(&anchor, device.clone(), now)
            .with_context(|| format!("`{place}` cannot be used"))?;
        let mut remote = Self {
            job,
            web: Web::new()?,
            url,
            chain,
        };
        remote.keyring(KeyringType::ImageMaster)?;
        let blacklist = "/gpg/blacklist.tar.xz".parse()?;
        if let Some(archive) = remote.web.small(&remote.url_of(&blacklist), MAX_KEYRING)? {
            let signature = remote.get(&blacklist.with_suffix(".asc")?, MAX_SIGNATURE)?;
            remote
                .chain
                .load_as(KeyringType::Blacklist, &archive, &signature)?;
        }
        remote.keyring(KeyringType::ImageSigning)?;
        Ok(remote)
    }

    fn keyring(&mut self, kind: KeyringType) -> anyhow::Result<()> {
        let path: TreePath = format!("/gpg/{kind}.tar.xz").parse()?;
        let archive = self.get(&path, MAX_KEYRING)?;
        let signature = self.get(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
        let url = self.url_of(&path);
        let loaded = self.chain.load_as(kind, &archive, &signature);
        loaded.with_context(|| format!("`{url}` cannot be trusted"))?;
        Ok(())
    }

    fn url_of(&self, path: &TreePath) -> String {
        format!("{}{path}", self.url)
    }

    fn get(&self, path: &TreePath, max: usize) -> anyhow::Result<Vec<u8>> {
        self.web.required(&self.url_of(path), max)
    }

    /// A document and its signature.
    fn signed(&self, path: &str, max: usize) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let path: TreePath = path.parse()?;
        Ok((
            self.get(&path, max)?,
            self.get(&path.with_suffix(".asc")?, MAX_SIGNATURE)?,
        ))
    }

    /// Fetches a file that an index names, verifies it, and stores it under the same path with a
    /// signature of ours.
    fn take_over(&self, file: &FileEntry, keyring: Option<&str>) -> anyhow::Result<Produced> {
        let (tree, path) = (self.job.tree, &file.path);
        if let Some(found) = known(tree, path)? {
            return Ok(found);
        }
        let url = self.url_of(path);
        let signature = self.get(&file.signature, MAX_SIGNATURE)?;
        let directory = tree.root().state().join("downloads");
        let expected = (Size::Exactly(file.size), Some(file.checksum));
        let fetched = self
            .web
            .download(&directory, &url, expected.0, expected.1)?;
        let mut data = fetched.open()?;
        let verified = self
            .chain
            .index_signers()?
            .verify_reader(&mut data, &signature);
        let digest = verified.with_context(|| format!("`{url}` cannot be trusted"))?;
        ensure!(
            *digest == file.checksum,
            "`{url}` reads back differently from what was fetched: check the disk"
        );
        let side = self.side(path)?;
        let detail = side.version_detail.clone().unwrap_or_default();
        let produced = if let Some(name) = keyring {
            let tar = android::with_keyring(tree, &mut data, self.job.device, name)?;
            let tar = tar.ok_or_else(|| {
                anyhow!("`{url}` has no recovery that the keyring `{name}` could be put into")
            })?;
            let generator = side.generator.as_deref().unwrap_or("remote-system-image");
            let more: Vec<_> = side
                .extra
                .iter()
                .map(|(key, value)| (key.as_str(), value.clone()))
                .collect();
            store(tree, path, tar, generator, detail, &more)?
        } else {
            super::http::check_archive(&mut data).with_context(|| format!("`{url}` is damaged"))?;
            let entry = pool::adopt(tree, path, &mut data, &side)?;
            Produced::File(Part::stored(entry), detail)
        };
        fetched.done()?;
        Ok(produced)
    }

    /// What the other server remembers of a file, if it says so with a good signature.
    fn side(&self, path: &TreePath) -> anyhow::Result<SideFile> {
        let place = side_path(path)?;
        let Some(bytes) = self.web.small(&self.url_of(&place), MAX_SIDE)? else {
            return Ok(SideFile::default());
        };
        let signature = self.get(&place.with_suffix(".asc")?, MAX_SIGNATURE)?;
        let verified = self.chain.index_signers()?.verify(bytes, &signature);
        let bytes =
            verified.with_context(|| format!("`{}` cannot be trusted", self.url_of(&place)))?;
        SideFile::parse(&bytes).with_context(|| format!("`{}` cannot be used", self.url_of(&place)))
    }
}

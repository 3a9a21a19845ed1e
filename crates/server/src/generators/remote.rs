//! `remote-system-image`: a file of another server, verified as a device would (server spec, section
//! 13.7, without what section 21, 22 says of it).

use anyhow::{Context, anyhow, bail, ensure};
use system_image_fetch::Size;
use system_image_formats::index::FileEntry;
use system_image_formats::side::SideFile;
use system_image_trust::Chain;

use super::{Job, Produced, known, store};
use crate::android;
use crate::bases::fulls;
use crate::config::Source;
use crate::part::Part;
use crate::pool;
use crate::remote::{Remote, read_anchor, usual_anchor};

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
    let root = job.tree.root();
    let place = match trust {
        Some(place) => root.path(place),
        None => usual_anchor(root, url),
    };
    let anchor = read_anchor(&place, url)?;
    let remote = Remote::open(url, anchor, device, job.tree.now())?;
    let (channels, _) = remote.channels()?;
    let entry = channels
        .get(channel)
        .and_then(|found| found.devices.get(device));
    let Some(entry) = entry else {
        return Ok(Produced::NotYet(format!(
            "`{url}` has no device `{device}` in a channel `{channel}`"
        )));
    };
    let (chain, _) = remote.chain_of(device, entry)?;
    let (index, _) = remote.index(entry, &chain)?;
    let at = || format!("`{}`", remote.url_of(&entry.index));
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
    take_over(job, &remote, &chain, &part.entry, keyring.as_deref())
}

/// Fetches a file that an index names, verifies it, and stores it under the same path with a
/// signature of ours.
fn take_over(
    job: Job<'_>,
    remote: &Remote,
    chain: &Chain,
    file: &FileEntry,
    keyring: Option<&str>,
) -> anyhow::Result<Produced> {
    let (tree, path) = (job.tree, &file.path);
    if let Some(found) = known(tree, path)? {
        return Ok(found);
    }
    let url = remote.url_of(path);
    let signers = chain.index_signers()?;
    let signature = remote.signature(&file.signature)?;
    let directory = tree.root().state().join("downloads");
    let expected = (Size::Exactly(file.size), Some(file.checksum));
    let fetched = remote
        .web()
        .download(&directory, &url, expected.0, expected.1)?;
    let mut data = fetched.open()?;
    let digest = signers
        .verify_reader(&mut data, &signature)
        .with_context(|| format!("`{url}` cannot be trusted"))?;
    ensure!(
        *digest == file.checksum,
        "`{url}` reads back differently from what was fetched: check the disk"
    );
    let side = match remote.side(path, &signers)? {
        Some(signed) => SideFile::parse(&signed.bytes)
            .with_context(|| format!("`{}` cannot be used", remote.url_of(&signed.path)))?,
        None => SideFile::default(),
    };
    let detail = side.version_detail.clone().unwrap_or_default();
    let produced = if let Some(name) = keyring {
        let tar = android::with_keyring(tree, &mut data, job.device, name)?;
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

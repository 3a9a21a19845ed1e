//! `keyring`: the operator's own trust root for the device (server spec, sections 8.4 and 13.5).

use std::fs;
use std::io::Write;

use system_image_delta::{Header, Kind};
use system_image_delta_build::Writer;
use system_image_formats::hash::Hasher;

use super::{Job, Produced, digest, item, known, pool_path, store};
use crate::input::scratch;

/// Where the device looks for its trust root.
const PLACE: &str = "system/usr/share/system-image/archive-master.tar.xz";

pub(super) fn produce(job: Job<'_>, name: &str) -> anyhow::Result<Produced> {
    let place = job.tree.root().keyrings().join(format!("{name}.tar.xz"));
    let signature = format!("{place}.asc");
    let (Ok(archive), Ok(signature)) = (fs::read(&place), fs::read(&signature)) else {
        return Ok(Produced::NotYet(format!(
            "there is no packed and signed keyring `{place}`"
        )));
    };
    let sum = |bytes: &[u8]| {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    };
    let hash = digest(&format!("{}/{}", sum(&archive), sum(&signature)));
    let path = pool_path("keyring", &hash)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let mut writer = Writer::new(Vec::new());
    for (path, mut content) in [
        (PLACE.to_owned(), &archive[..]),
        (format!("{PLACE}.asc"), &signature[..]),
    ] {
        let header = Header::of_root(
            path.into_bytes(),
            Kind::File {
                size: content.len() as u64,
            },
            0o644,
            job.tree.now(),
        );
        writer.member(&header, &mut content)?;
    }
    let mut tar = scratch(job.tree)?;
    tar.write_all(&writer.finish()?.0)?;
    let more = [
        ("version", hash.to_string().into()),
        ("path", place.as_str().into()),
    ];
    store(
        job.tree,
        &path,
        tar,
        "keyring",
        item("keyring", name)?,
        &more,
    )
}

//! Factory reset: user data is removed, but for what the device needs to stay trustworthy and
//! bootable (upgrader spec, section 14).

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::Root;
use system_image_tree::{LOST_AND_FOUND, STAGING_NAME, remove};

use crate::config::{Reset, Settings, SystemAt};
use crate::deploy::swap::RECORD;
use crate::keyrings::BLACKLIST;
use crate::log;

/// Spared if there is no list of persistent files, as the lists that were shipped have it.
const USUAL: [&str; 2] = [".last_update", ".last_ubuntu-build"];

/// Where the drop box may live, by any of its names.
const CACHE: [&str; 2] = ["cache", "android-data/cache"];

/// Longest list of persistent files that is read, in bytes.
const MAX_LIST: usize = 64 << 10;

/// Removes everything from `data` that a reset does not spare.
pub fn wipe(data: &Root, settings: &Settings) -> io::Result<()> {
    let spared: Vec<_> = spared(settings)
        .into_iter()
        .map(Utf8PathBuf::into_string)
        .collect();
    let spared: Vec<_> = spared.into_iter().map(String::into_bytes).collect();
    remove::all_but(data, &spared)
}

/// Paths below user data that a reset spares, with all that is below them.
///
/// Without the blacklist, a key that was withdrawn would be good again after a reset: the original
/// forgets it.
fn spared(settings: &Settings) -> Vec<Utf8PathBuf> {
    let mut spared: Vec<Utf8PathBuf> = Vec::new();
    let fixed = [STAGING_NAME, RECORD, LOST_AND_FOUND]
        .into_iter()
        .chain(CACHE);
    spared.extend(fixed.map(Into::into));
    spared.push(BLACKLIST.into());
    spared.push(format!("{BLACKLIST}.asc").into());
    spared.extend(settings.reset.keep.iter().cloned());
    spared.extend(listed(&settings.reset));
    let mut own: Vec<&Utf8Path> = vec![&settings.drop_box, &settings.result];
    own.extend(settings.log.as_deref());
    match &settings.system {
        SystemAt::Image { mounted, names, .. } => {
            own.push(&mounted.on);
            own.extend(names.iter().map(Utf8PathBuf::as_path));
            own.push(&mounted.mountpoint);
        }
        SystemAt::Device(mounted) => own.push(&mounted.mountpoint),
        SystemAt::Directory(path) => own.push(path),
        SystemAt::Slots(slots) => {
            own.push(&slots.state);
            match &slots.at {
                crate::config::SlotAt::Directory(path) => {
                    // All of them: what stands before the slot's name.
                    own.extend(
                        Utf8Path::new(path)
                            .ancestors()
                            .find(|at| !at.as_str().contains("{slot}")),
                    );
                }
                crate::config::SlotAt::Device(mounted) => own.push(&mounted.mountpoint),
            }
        }
    }
    let below = own
        .into_iter()
        .filter_map(|path| path.strip_prefix(&settings.data).ok());
    spared.extend(
        below
            .filter(|path| !path.as_str().is_empty())
            .map(Utf8Path::to_owned),
    );
    spared
}

/// The paths of the list of persistent files.
fn listed(reset: &Reset) -> Vec<Utf8PathBuf> {
    let text = match system_image_durable::read(&reset.list, MAX_LIST) {
        Ok(Some(text)) => text,
        Ok(None) => return USUAL.map(Into::into).to_vec(),
        Err(error) => {
            log(&format!("cannot read `{}`: {error}", reset.list));
            return USUAL.map(Into::into).to_vec();
        }
    };
    parse(&String::from_utf8_lossy(&text)).collect()
}

/// One path a line, with comments and empty lines.
fn parse(text: &str) -> impl Iterator<Item = Utf8PathBuf> {
    let lines = text.lines().map(|line| line.trim().trim_matches('/'));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| !line.split('/').any(|part| matches!(part, "" | "." | "..")))
        .map(Utf8PathBuf::from)
}

/// Whether the list can be read, for `check`.
pub fn check(reset: &Reset) -> io::Result<()> {
    match fs::metadata(&reset.list) {
        Ok(_) => fs::File::open(&reset.list).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_persistent_files_is_read() {
        let text = "# kept\n\n.last_update\n /system-data/x/ \n../out\nwith blank\n";
        let got: Vec<_> = parse(text).collect();
        assert_eq!(got, [".last_update", "system-data/x", "with blank"]);
    }
}

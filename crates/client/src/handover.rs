//! The drop box: what the upgrader finds there (client spec, sections 9.8 and 14).

use std::collections::BTreeSet;
use std::{fs, io};

use anyhow::Context;
use camino::Utf8Path;
use system_image_durable as durable;
use system_image_formats::command::{Command, CommandFile, SignedFile};
use system_image_formats::config::{ClientConfig, Gpg};
use system_image_formats::index::FileEntry;
use system_image_formats::name::{FileName, NameError};
use system_image_planner::Route;

use crate::files;
use crate::log::Log;

/// The name of the command file.
pub const COMMAND_FILE: &str = "ubuntu_command";

/// Largest keyring archive that is copied, in bytes.
const MAX_KEYRING: usize = 4 << 20;

/// Largest command file that is read, in bytes.
const MAX_COMMAND_FILE: usize = 4 << 20;

/// What the names of files that are not complete end with.
pub const PARTIAL: [&str; 3] = [".part", ".part.info", ".new"];

/// The commands that apply these files of a route.
pub fn commands(
    keyrings: &[FileName],
    route: &Route<'_>,
    files: &[FileEntry],
) -> Result<CommandFile, NameError> {
    let mut commands = Vec::new();
    for keyring in keyrings {
        commands.push(Command::LoadKeyring(SignedFile::of(keyring.clone())?));
    }
    if route.starts_from_nothing() {
        commands.push(Command::FormatSystem);
    }
    commands.push(Command::MountSystem);
    for file in files {
        commands.push(Command::Update(SignedFile::of(file.path.file_name()?)?));
    }
    commands.push(Command::UnmountSystem);
    Ok(commands.into_iter().collect())
}

/// Copies the keyrings that the upgrader needs, writes the command file, and only then removes
/// what no command names any more: an update that was prepared before stays whole until then.
pub fn prepare(
    config: &ClientConfig,
    route: &Route<'_>,
    files: &[FileEntry],
    has_device_keyring: bool,
    log: &Log,
) -> anyhow::Result<()> {
    let drop_box = &config.cache_partition;
    let device = has_device_keyring.then_some(&config.gpg.device_signing);
    let places = [&config.gpg.image_master, &config.gpg.image_signing];
    let mut names = Vec::new();
    let mut outdated = Vec::new();
    for place in places.into_iter().chain(device) {
        let name = keyring_name(place)?;
        let signature = format!("{name}.asc");
        for (from, to) in [
            (place.clone(), drop_box.join(name.as_str())),
            (place.with_file_name(&signature), drop_box.join(signature)),
        ] {
            let content = durable::read(&from, MAX_KEYRING)
                .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
                .with_context(|| format!("cannot read `{from}`"))?;
            if fs::read(&to).ok().as_deref() != Some(&content[..]) {
                outdated.push((name.clone(), to, content));
            }
        }
        names.push(name);
    }
    retract(
        drop_box,
        |file| outdated.iter().any(|(name, ..)| name == file),
        log,
    )?;
    for (_, to, content) in outdated {
        files::replace(&to, &content)?;
    }
    let commands = commands(&names, route, files)?;
    files::replace(&drop_box.join(COMMAND_FILE), &commands.to_bytes())?;
    clean_up(drop_box, &commands, log)
}

/// The names that keyrings have in the drop box.
pub fn keyring_names(gpg: &Gpg) -> Result<Vec<FileName>, NameError> {
    [&gpg.image_master, &gpg.image_signing, &gpg.device_signing]
        .map(|place| keyring_name(place))
        .into_iter()
        .collect()
}

fn keyring_name(place: &Utf8Path) -> Result<FileName, NameError> {
    place.file_name().unwrap_or_default().parse()
}

/// Takes back an update that was prepared before if it names one of the files that are about to
/// be replaced: whatever the command file names must be there and good at every moment.
pub fn retract(
    drop_box: &Utf8Path,
    replaced: impl Fn(&FileName) -> bool,
    log: &Log,
) -> anyhow::Result<()> {
    let path = drop_box.join(COMMAND_FILE);
    let failed = || format!("cannot take back `{path}`");
    let Some(bytes) = durable::read(&path, MAX_COMMAND_FILE).with_context(failed)? else {
        return Ok(());
    };
    // One that cannot be read may name anything.
    let concerned = CommandFile::parse(&bytes).map_or(true, |commands| {
        commands.commands().any(|command| match command {
            Command::LoadKeyring(signed) | Command::Update(signed) => replaced(signed.file()),
            _ => false,
        })
    });
    if concerned {
        log.info("taking back the prepared update, whose files are replaced");
        durable::remove(&path)
            .and_then(|()| durable::sync_directory(drop_box))
            .with_context(failed)?;
    }
    Ok(())
}

/// Removes payloads and keyrings that no command names. Other files stay: the drop box may be
/// shared with a recovery's logs.
fn clean_up(drop_box: &Utf8Path, commands: &CommandFile, log: &Log) -> anyhow::Result<()> {
    let named: BTreeSet<_> = commands
        .commands()
        .filter_map(|command| match command {
            Command::LoadKeyring(signed) | Command::Update(signed) => {
                Some([signed.file().as_str(), signed.signature().as_str()])
            }
            _ => None,
        })
        .flatten()
        .collect();
    let unreadable = || format!("cannot read `{drop_box}`");
    for entry in drop_box.read_dir_utf8().with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let whole = PARTIAL
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let ours = whole
            .strip_suffix(".asc")
            .unwrap_or(whole)
            .strip_suffix(".tar.xz")
            .is_some();
        if ours && !named.contains(name) && entry.file_type().with_context(unreadable)?.is_file() {
            log.info(&format!(
                "removing {}, which belongs to no update",
                entry.path()
            ));
            durable::remove(entry.path())
                .with_context(|| format!("cannot remove `{}`", entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;
    use system_image_formats::config::LogLevel;

    use super::*;

    #[test]
    fn only_what_no_command_names_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let drop_box = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let kept = [
            "log",
            "last_log",
            "new.tar.xz",
            "new.tar.xz.asc",
            "photo.jpg",
        ];
        let gone = [
            "old.tar.xz",
            "old.tar.xz.asc",
            "old.tar.xz.part",
            "old.tar.xz.part.info",
            "old.tar.xz.asc.new",
        ];
        for name in kept.iter().chain(&gone) {
            fs::write(drop_box.join(name), name).unwrap();
        }
        let update = Command::Update(SignedFile::of("new.tar.xz".parse().unwrap()).unwrap());
        let log = Log::open(&drop_box.join("log"), LogLevel::Critical, 0);
        clean_up(&drop_box, &[update].into_iter().collect(), &log).unwrap();
        for name in kept {
            assert!(drop_box.join(name).exists(), "{name}");
        }
        for name in gone {
            assert!(!drop_box.join(name).exists(), "{name}");
        }
    }
}

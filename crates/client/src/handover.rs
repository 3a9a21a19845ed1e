//! The drop box: what the upgrader finds there (client spec, sections 9.8 and 14).

use std::collections::BTreeSet;
use std::fs::File;
use std::{fs, io};

use anyhow::{Context, bail};
use camino::Utf8Path;
use system_image_durable as durable;
use system_image_formats::command::{Command, CommandFile, Setting, SignedFile};
use system_image_formats::config::{ClientConfig, Gpg};
use system_image_formats::index::FileEntry;
use system_image_formats::name::{FileName, NameError};

use crate::apply::Reset;
use crate::check::Update;
use crate::files;
use crate::log::Log;
use crate::session::{self, Facts};
use crate::state::PreparedFile;

/// The name of the command file.
pub const COMMAND_FILE: &str = "ubuntu_command";

/// Largest keyring archive that is copied, in bytes.
const MAX_KEYRING: usize = 4 << 20;

/// Largest command file that is read, in bytes.
const MAX_COMMAND_FILE: usize = 4 << 20;

/// What the names of files that are not complete end with.
pub const PARTIAL: [&str; 4] = [".part", ".part.info", ".new", ".tmp"];

/// The commands that apply these files, onto nothing if the route has a full image.
pub fn commands(
    keyrings: &[FileName],
    is_full: bool,
    files: &[FileEntry],
) -> Result<CommandFile, NameError> {
    let mut commands = Vec::new();
    for keyring in keyrings {
        commands.push(Command::LoadKeyring(SignedFile::of(keyring.clone())?));
    }
    if is_full {
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
pub fn prepare(config: &ClientConfig, update: &Update, log: &Log) -> anyhow::Result<()> {
    let drop_box = &config.cache_partition;
    let device = (update.device_keyring).then_some(&config.gpg.device_signing);
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
            let content = read_small(&from)?;
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
    let commands = commands(&names, update.is_full, &update.files)?;
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

/// Takes back whatever was prepared before.
pub fn take_back(drop_box: &Utf8Path) -> anyhow::Result<()> {
    let path = drop_box.join(COMMAND_FILE);
    durable::remove(&path)
        .and_then(|()| durable::present(durable::sync_directory(drop_box)).map(drop))
        .with_context(|| format!("cannot take back `{path}`"))
}

/// Has the recovery wipe the user's data, in place of whatever was prepared.
pub fn write_reset(drop_box: &Utf8Path, kind: Reset) -> anyhow::Result<()> {
    let wipe = match kind {
        Reset::Factory => None,
        Reset::Production => Some(Command::Enable(Setting::FactoryWipe)),
    };
    let commands: CommandFile = [Command::FormatData].into_iter().chain(wipe).collect();
    files::replace(&drop_box.join(COMMAND_FILE), &commands.to_bytes())
}

/// Checks what the upgrader will check: that the command file is there, and whatever it names is
/// there and signed, and that the updates are these files. False when nothing is prepared.
pub fn verify(facts: Facts<'_>, files: &[PreparedFile]) -> anyhow::Result<bool> {
    let drop_box = &facts.config.cache_partition;
    let path = drop_box.join(COMMAND_FILE);
    let bytes =
        durable::read(&path, MAX_COMMAND_FILE).with_context(|| format!("cannot read `{path}`"))?;
    let Some(bytes) = bytes else {
        return Ok(false);
    };
    let commands = CommandFile::parse(&bytes).with_context(|| format!("cannot use `{path}`"))?;
    let mut chain = session::anchor(facts)?;
    let mut left = files.iter();
    for command in commands.commands() {
        match command {
            Command::LoadKeyring(signed) => {
                let [archive, signature] = read(drop_box, signed)?;
                chain
                    .load(&archive, &signature)
                    .with_context(|| format!("cannot use `{}`", signed.file()))?;
            }
            Command::Update(signed) => {
                let known = left.next().filter(|known| known.name == *signed.file());
                let known = known
                    .with_context(|| format!("`{}` belongs to no known update", signed.file()))?;
                let place = drop_box.join(signed.file().as_str());
                let failed = || format!("cannot read `{place}`");
                let data = File::open(&place).with_context(failed)?;
                let [signature] = [read_small(&drop_box.join(signed.signature().as_str()))?];
                let digest = (chain.index_signers()?)
                    .verify_reader(data, &signature)
                    .with_context(|| format!("`{place}` has no good signature"))?;
                if *digest != known.sha256 {
                    bail!("`{place}` is not the file that was prepared");
                }
            }
            Command::FormatSystem | Command::MountSystem | Command::UnmountSystem => {}
            // A reset is no update.
            _ => return Ok(false),
        }
    }
    match left.next() {
        None => Ok(true),
        Some(missing) => bail!("`{path}` does not name `{}`", missing.name),
    }
}

fn read(drop_box: &Utf8Path, signed: &SignedFile) -> anyhow::Result<[Vec<u8>; 2]> {
    Ok([
        read_small(&drop_box.join(signed.file().as_str()))?,
        read_small(&drop_box.join(signed.signature().as_str()))?,
    ])
}

fn read_small(path: &Utf8Path) -> anyhow::Result<Vec<u8>> {
    durable::read(path, MAX_KEYRING)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("cannot read `{path}`"))
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

//! Unpacks a ZIP archive into a directory that it cannot leave (specification, section 16).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8Path;
use rustix::fs::OFlags;
use zip::ZipArchive;
use zip::result::ZipError;

/// More bytes of output for each of an archive than any honest compression makes.
const MAX_RATIO: u64 = 2000;

/// Unpacks files and directories; links and devices are left out. What is there already is not
/// overwritten.
///
/// # Errors
/// When it is no archive, has a path that leads out of `into`, or cannot be written.
pub fn unpack(archive: &Utf8Path, into: &Utf8Path) -> io::Result<()> {
    let file = fs::File::open(archive)?;
    let mut room = file.metadata()?.len().saturating_mul(MAX_RATIO);
    let mut archive = ZipArchive::new(file).map_err(unreadable)?;
    for place in 0..archive.len() {
        let mut entry = archive.by_index(place).map_err(unreadable)?;
        let name = entry.enclosed_name().ok_or_else(|| {
            let name = entry.name().unwrap_or_default();
            let text = format!("the archive's `{name}` leads out of it");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        let path = into.as_std_path().join(name);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
            continue;
        }
        if !entry.is_file() {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut target = options.open(&path)?;
        let copied = io::copy(&mut io::Read::take(&mut entry, room + 1), &mut target)?;
        room = room
            .checked_sub(copied)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the archive is a bomb"))?;
        target.sync_all()?;
    }
    Ok(())
}

fn unreadable(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use camino::Utf8PathBuf;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(place: &Utf8Path, entries: &[(&str, &[u8])]) -> Utf8PathBuf {
        let path = place.join("a.zip");
        let mut writer = ZipWriter::new(fs::File::create(&path).unwrap());
        for (name, content) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn files_come_out_and_nothing_leaves_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let place = Utf8Path::from_path(place.path()).unwrap();
        let good = archive(place, &[("x/y", b"one"), ("z", b"two")]);
        unpack(&good, place).unwrap();
        assert_eq!(fs::read(place.join("x/y")).unwrap(), b"one");
        assert_eq!(fs::read(place.join("z")).unwrap(), b"two");
        assert!(unpack(&good, place).is_err(), "nothing is overwritten");

        let into = place.join("in");
        fs::create_dir(&into).unwrap();
        let bad = archive(place, &[("../out", b"x")]);
        let error = unpack(&bad, &into).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        assert!(!place.join("out").exists());
        fs::write(&bad, b"no archive").unwrap();
        assert!(unpack(&bad, &into).is_err());
    }
}

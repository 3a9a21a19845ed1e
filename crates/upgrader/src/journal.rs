//! The command file on disk, and how far its steps have got.
//!
//! | name | meaning |
//! | --- | --- |
//! | `ubuntu_command` | nothing of it has been done |
//! | `ubuntu_command.applying` | its steps have begun: the system is mixed until the last one is done |
//! | `ubuntu_command.refused` | it was refused and nothing was changed; kept for people |
//!
//! A refused file must not stay under its own name: a recovery that finds it there boots into
//! itself again and again. One that is being applied must stay until its end: it is what makes
//! the next start continue. Each finished step is noted at its end as a comment, which every
//! other reader skips. A step that has been noted is not repeated: after a later delta an earlier
//! one no longer fits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable::{rename, sync_parent};
use system_image_formats::command::MAX_LEN;

/// What a note begins with.
const NOTE: &str = "# system-image-upgrader:";

/// Most bytes that notes add to a command file: a line for each of its lines.
const MAX_NOTED: u64 = 32 * MAX_LEN as u64;

/// A command file by its three names.
#[derive(Clone, Debug)]
pub struct Journal {
    path: Utf8PathBuf,
    applying: Utf8PathBuf,
    refused: Utf8PathBuf,
}

/// A command file's text and what is noted in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The file as the client wrote it, and the notes, which are comments.
    pub text: Vec<u8>,
    /// Number of steps that are done for good.
    pub done: usize,
    /// All steps are done; only files are left to be cleaned away.
    pub finished: bool,
}

impl Journal {
    /// For the command file that the recovery names.
    pub fn new(path: Utf8PathBuf) -> Self {
        let with = |suffix: &str| Utf8PathBuf::from(format!("{path}.{suffix}"));
        Self {
            applying: with("applying"),
            refused: with("refused"),
            path,
        }
    }

    /// The new command file, if there is one.
    pub fn fresh(&self) -> io::Result<Option<Noted>> {
        read(&self.path)
    }

    /// The one whose steps have begun, if there is one.
    pub fn begun(&self) -> io::Result<Option<Noted>> {
        read(&self.applying)
    }

    /// Makes the new command file the one whose steps have begun, on the disk, in place of any
    /// other.
    pub fn begin(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        rename(self.path.as_std_path(), self.applying.as_std_path())
    }

    /// Notes that `done` steps are done. To be called when what they did is on the disk.
    pub fn note_done(&self, done: usize) -> io::Result<()> {
        self.note(&format!("done {done}"))
    }

    /// Notes that all is done and only files are left to be cleaned away.
    pub fn note_finished(&self) -> io::Result<()> {
        self.note("finished")
    }

    fn note(&self, note: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.applying)?;
        // The line before may lack its end; an empty line is nothing.
        file.write_all(format!("\n{NOTE} {note}\n").as_bytes())?;
        file.sync_all()
    }

    /// Forgets the command file whose steps are done.
    pub fn end(&self) -> io::Result<()> {
        fs::remove_file(&self.applying)?;
        sync_parent(&self.applying)
    }

    /// Puts the new command file aside, which was refused.
    pub fn refuse(&self) -> io::Result<()> {
        rename(self.path.as_std_path(), self.refused.as_std_path())
    }
}

fn read(path: &Utf8Path) -> io::Result<Option<Noted>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_NOTED).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(noted(text)))
}

/// Finds the notes. One that a power cut left incomplete says nothing.
fn noted(text: Vec<u8>) -> Noted {
    let mut noted = Noted::default();
    let complete = text.iter().rposition(|&b| b == b'\n').unwrap_or(0);
    for line in text[..complete].split(|&b| b == b'\n') {
        let Some(note) = line.strip_prefix(NOTE.as_bytes()) else {
            continue;
        };
        match std::str::from_utf8(note)
            .unwrap_or_default()
            .trim()
            .split_once(' ')
        {
            Some(("done", count)) => {
                noted.done = count
                    .parse()
                    .map_or(noted.done, |count: usize| count.max(noted.done));
            }
            None if note.trim_ascii() == b"finished" => noted.finished = true,
            _ => {}
        }
    }
    noted.text = text;
    noted
}

#[cfg(test)]
mod tests {
    use system_image_formats::command::CommandFile;

    use super::*;

    #[test]
    fn notes_survive_and_leave_the_commands_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("ubuntu_command")).unwrap();
        // The last line has no end, as some installers write it.
        let text = "mount system\nunmount system";
        fs::write(&path, text).unwrap();
        let journal = Journal::new(path);
        assert_eq!(journal.begun().unwrap(), None);
        journal.begin().unwrap();
        assert_eq!(journal.fresh().unwrap(), None);
        journal.note_done(1).unwrap();
        journal.note_done(3).unwrap();
        let begun = journal.begun().unwrap().unwrap();
        assert_eq!((begun.done, begun.finished), (3, false));
        let commands = |text: &[u8]| {
            CommandFile::parse(text)
                .unwrap()
                .commands()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(commands(&begun.text), commands(text.as_bytes()));
        journal.note_finished().unwrap();
        assert!(journal.begun().unwrap().unwrap().finished);
        journal.end().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_note_that_was_cut_says_nothing() {
        let done = |text: &str| noted(text.as_bytes().to_vec()).done;
        assert_eq!(
            done("x\n# system-image-upgrader: done 1\n# system-image-upgrader: done 2"),
            1
        );
        assert_eq!(done("x\n# system-image-upgrader: done 12\n"), 12);
        assert_eq!(
            done("x\n# system-image-upgrader: done x\n# system-image-upgrader: d\n"),
            0
        );
    }
}

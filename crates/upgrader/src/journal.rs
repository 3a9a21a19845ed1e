//! The command file on disk, and how far its work has got.
//!
//! | name | meaning |
//! | --- | --- |
//! | `ubuntu_command` | nothing of it has been done that anybody sees |
//! | `ubuntu_command.applying` | the changes have begun: the next start continues |
//! | `ubuntu_command.journal` | how far they have got |
//! | `ubuntu_command.refused` | it was refused and nothing was changed; kept for people |
//! | `ubuntu_command.failed` | it was continued again and again and got no further; kept for people |
//!
//! A refused file must not stay under its own name: a recovery that finds it there boots into itself
//! again and again. The journal only grows, by one record a line; each has a checksum, and belongs to the
//! command file whose digest stands in the first. A record that a power cut left incomplete says
//! nothing, nor does what follows it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use system_image_durable::{self as durable, rename, sync_parent};
use system_image_formats::command::MAX_LEN;

/// Most bytes of a journal: a record for each line of a command file, and for each attempt.
const MAX_JOURNAL: usize = 32 * MAX_LEN;

/// Hexadecimal digits of a record's checksum.
const CHECKSUM: usize = 16;

/// The names of a command file.
#[derive(Clone, Debug)]
pub struct Journal {
    path: Utf8PathBuf,
    applying: Utf8PathBuf,
    records: Utf8PathBuf,
    refused: Utf8PathBuf,
    failed: Utf8PathBuf,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Record {
    /// The changes begin.
    Begin {
        /// Of the command file.
        digest: String,
        /// How they are made.
        way: Way,
        /// The slot that is changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<String>,
    },
    /// They are continued.
    Attempt,
    /// So many pieces of work are done, and their effect is on the disk.
    Done(usize),
    /// All is done; only files are left to be cleaned away.
    Finished,
}

/// How the changes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A new system was prepared and takes the place of the old one.
    Prepared,
    /// The system itself is changed.
    Direct,
}

/// How far the work on a command file has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The command file.
    pub text: Vec<u8>,
    /// How the changes are made.
    pub way: Way,
    /// The slot that is changed.
    pub slot: Option<String>,
    /// Pieces of work that are done for good.
    pub done: usize,
    /// How often it was continued since one was done.
    pub attempts: u32,
    /// Only files are left to be cleaned away.
    pub finished: bool,
    /// Whether this program began it; else somebody else's did, and nobody knows how far it got.
    pub is_ours: bool,
}

impl Journal {
    /// For the command file that the recovery names.
    pub fn new(path: Utf8PathBuf) -> Self {
        let with = |suffix: &str| Utf8PathBuf::from(format!("{path}.{suffix}"));
        Self {
            applying: with("applying"),
            records: with("journal"),
            refused: with("refused"),
            failed: with("failed"),
            path,
        }
    }

    /// The new command file, if there is one.
    pub fn fresh(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.path)
    }

    /// The one whose changes have begun, if there is one.
    pub fn begun(&self) -> io::Result<Option<Begun>> {
        let Some(text) = read(&self.applying)? else {
            return Ok(None);
        };
        let journal = durable::read(&self.records, MAX_JOURNAL)?.unwrap_or_default();
        Ok(Some(begun(text, &journal)))
    }

    /// Makes the new command file the one whose changes have begun, on the disk, in place of any other.
    pub fn begin(&self, way: Way, slot: Option<String>) -> io::Result<()> {
        let digest = hex(&fs::read(&self.path)?);
        let record = line(&Record::Begin { digest, way, slot });
        durable::replace(&self.records, record.as_bytes(), 0o600)?;
        File::open(&self.path)?.sync_all()?;
        let begun = rename(self.path.as_std_path(), self.applying.as_std_path());
        if begun.is_err() {
            // The name may be on the disk or not: it must not say what did not happen.
            let _ = fs::rename(&self.applying, &self.path);
        }
        begun
    }

    /// Notes that the work is continued.
    pub fn note_attempt(&self) -> io::Result<()> {
        self.append(&Record::Attempt)
    }

    /// Notes that `done` pieces of work are done. To be called when what they did is on the disk.
    pub fn note_done(&self, done: usize) -> io::Result<()> {
        self.append(&Record::Done(done))
    }

    /// Notes that all is done and only files are left to be cleaned away.
    pub fn note_finished(&self) -> io::Result<()> {
        self.append(&Record::Finished)
    }

    fn append(&self, record: &Record) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.records)?;
        // A record that was cut must not take this one with it.
        file.write_all(format!("\n{}", line(record)).as_bytes())?;
        file.sync_all()
    }

    /// Forgets the command file whose work is done.
    pub fn end(&self) -> io::Result<()> {
        durable::remove(&self.applying)?;
        sync_parent(&self.applying)?;
        // Without its command file it says nothing.
        durable::remove(&self.records)
    }

    /// Removes records whose command file is gone, as a cut at the very end leaves them.
    pub fn sweep(&self) -> io::Result<()> {
        durable::remove(&self.records)
    }

    /// Puts the new command file aside, which was refused.
    pub fn refuse(&self) -> io::Result<()> {
        rename(self.path.as_std_path(), self.refused.as_std_path())
    }

    /// Makes one whose changes somebody else began a new one.
    pub fn begin_again(&self) -> io::Result<()> {
        rename(self.applying.as_std_path(), self.path.as_std_path())
    }

    /// Puts the one aside whose work cannot be done.
    pub fn give_up(&self) -> io::Result<()> {
        rename(self.applying.as_std_path(), self.failed.as_std_path())?;
        durable::remove(&self.records)
    }
}

fn read(path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = durable::present(File::open(path))? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    // One byte more than is allowed: it is refused when it is parsed.
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// What a journal says of a command file.
fn begun(text: Vec<u8>, journal: &[u8]) -> Begun {
    let digest = hex(&text);
    let mut begun = Begun {
        text,
        way: Way::Direct,
        slot: None,
        done: 0,
        attempts: 0,
        finished: false,
        is_ours: false,
    };
    let mut records = journal.split(|&b| b == b'\n').filter_map(parse);
    match records.next() {
        Some(Record::Begin {
            digest: of,
            way,
            slot,
        }) if of == digest => {
            (begun.way, begun.slot, begun.is_ours) = (way, slot, true);
        }
        _ => return begun,
    }
    for record in records {
        match record {
            Record::Attempt => begun.attempts += 1,
            Record::Done(done) if done > begun.done => (begun.done, begun.attempts) = (done, 0),
            Record::Begin { .. } | Record::Done(_) => {}
            Record::Finished => begun.finished = true,
        }
    }
    begun
}

fn line(record: &Record) -> String {
    let text = serde_json::to_string(record).expect("a record is always JSON");
    format!("{} {text}\n", &hex(text.as_bytes())[..CHECKSUM])
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?;
    let (checksum, text) = line.split_once(' ')?;
    (hex(text.as_bytes()).get(..CHECKSUM)? == checksum)
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(text: &str) -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("ubuntu_command")).unwrap();
        fs::write(&path, text).unwrap();
        (directory, Journal::new(path))
    }

    #[test]
    fn how_far_the_work_has_got_is_remembered() {
        // The last line has no end, as some installers write it.
        let text = "mount system\nunmount system";
        let (directory, journal) = journal(text);
        assert_eq!(journal.begun().unwrap(), None);
        journal.begin(Way::Prepared, Some("b".into())).unwrap();
        assert_eq!(journal.fresh().unwrap(), None);
        let begun = || journal.begun().unwrap().unwrap();
        journal.note_attempt().unwrap();
        assert_eq!((begun().done, begun().attempts), (0, 1));
        journal.note_done(1).unwrap();
        journal.note_attempt().unwrap();
        journal.note_attempt().unwrap();
        let got = begun();
        assert_eq!((got.done, got.attempts, got.finished), (1, 2, false));
        assert_eq!(
            (got.way, got.slot.as_deref(), got.is_ours),
            (Way::Prepared, Some("b"), true)
        );
        assert_eq!(got.text, text.as_bytes());
        journal.note_finished().unwrap();
        assert!(begun().finished);
        journal.end().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_journal_cut_anywhere_says_what_its_whole_records_say() {
        let (_directory, journal) = journal("mount system\n");
        journal.begin(Way::Direct, None).unwrap();
        let first = fs::read(&journal.records).unwrap().len();
        for done in 1..=3 {
            journal.note_done(done).unwrap();
        }
        let whole = fs::read(&journal.records).unwrap();
        let mut seen = Vec::new();
        for cut in 0..=whole.len() {
            fs::write(&journal.records, &whole[..cut]).unwrap();
            let begun = journal.begun().unwrap().unwrap();
            assert_eq!(begun.is_ours, cut + 1 >= first, "{cut}");
            seen.push(begun.done);
            // What is noted after the cut counts.
            if begun.is_ours {
                journal.note_done(9).unwrap();
                assert_eq!(journal.begun().unwrap().unwrap().done, 9, "{cut}");
            }
        }
        assert!(seen.is_sorted() && seen.last() == Some(&3), "{seen:?}");
    }

    #[test]
    fn a_journal_of_another_command_file_says_nothing() {
        let (_directory, journal) = journal("mount system\n");
        journal.begin(Way::Prepared, None).unwrap();
        journal.note_done(2).unwrap();
        fs::write(&journal.applying, "format data\n").unwrap();
        let begun = journal.begun().unwrap().unwrap();
        assert!(!begun.is_ours && begun.done == 0);
        journal.begin_again().unwrap();
        assert_eq!(journal.fresh().unwrap().unwrap(), b"format data\n");
    }
}

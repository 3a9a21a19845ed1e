//! The database of downloads, which outlives the process, the session and the device's power
//! (specification, section 17).
//!
//! Two tables of our own hold all that is needed to go on. `SingleDownload` is the original's: rows are
//! written to it in its form, so that its programs go on reading them, and what they left there as not yet
//! collected is taken over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, OptionalExtension, Row, params};
use system_image_bus::download::Family;

use crate::job::download::{Download, File, Identity, Shape};
use crate::job::ids;
use crate::job::machine::{Machine, State};
use crate::job::metadata::Metadata;

/// How long another process may hold the database.
const PATIENCE: Duration = Duration::from_secs(5);

/// Downloads that are over of which the state is kept.
const HISTORY: u32 = 1000;

/// What the original writes for `sha256`.
const MISSPELT: &str = "shq256";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS SingleDownload(
    uuid VARCHAR(40) PRIMARY KEY, appId TEXT NOT NULL, url TEXT NOT NULL,
    dbus_path TEXT NOT NULL UNIQUE, local_path TEXT, hash TEXT, hash_algo TEXT,
    state VARCHAR(6) NOT NULL, total_size TEXT, throttle TEXT, metadata TEXT, headers TEXT);
CREATE TABLE IF NOT EXISTS Download(
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, shape TEXT NOT NULL, family TEXT NOT NULL,
    owner TEXT NOT NULL, confined TEXT, state TEXT NOT NULL, ran INTEGER NOT NULL,
    throttle INTEGER NOT NULL, mobile_data INTEGER NOT NULL, metadata BLOB, headers TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS DownloadFile(
    number INTEGER NOT NULL, place INTEGER NOT NULL, url TEXT NOT NULL, destination TEXT NOT NULL,
    stage TEXT NOT NULL, exact INTEGER NOT NULL, hash TEXT NOT NULL, algorithm TEXT NOT NULL,
    total INTEGER, device INTEGER, inode INTEGER, size INTEGER, done INTEGER NOT NULL,
    PRIMARY KEY(number, place)) WITHOUT ROWID;
";

/// The records.
#[derive(Debug)]
pub struct Records {
    database: Connection,
}

/// What `getDownloadState` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The state.
    pub state: State,
    /// Where from.
    pub url: String,
    /// Where to.
    pub path: String,
    /// The digest as given.
    pub hash: String,
}

impl Records {
    /// Opens the database at `place`, and makes it and its directory if they are missing.
    pub fn open(place: &Utf8Path) -> rusqlite::Result<Self> {
        if let Some(parent) = place.parent() {
            // What fails here fails again below, with the path in its text.
            let _ = fs::create_dir_all(parent);
        }
        // Headers may hold what gives access, so that nobody else may read it.
        let mut options = fs::OpenOptions::new();
        let _ = options.append(true).create(true).mode(0o600).open(place);
        Self::prepare(Connection::open(place)?)
    }

    /// Records that end with the process, for a device whose disk takes none.
    pub fn fleeting() -> rusqlite::Result<Self> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(database: Connection) -> rusqlite::Result<Self> {
        database.busy_timeout(PATIENCE)?;
        // A crash loses nothing; a power cut at most the last moments, never the order of things.
        database.pragma_update(None, "journal_mode", "wal")?;
        database.pragma_update(None, "synchronous", "normal")?;
        database.pragma_update(None, "cache_size", -256)?;
        database.execute_batch(TABLES)?;
        Ok(Self { database })
    }

    /// Writes all of a download.
    pub fn save(&mut self, download: &Download) -> rusqlite::Result<()> {
        let headers = serde_json::to_string(&download.headers).unwrap_or_default();
        let transaction = self.database.transaction()?;
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO Download VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
            )?
            .execute(params![
                signed(download.number),
                download.id,
                shape_text(download.shape),
                family_text(download.family),
                download.owner,
                download.confined,
                download.machine.state().text(),
                download.ran,
                signed(download.throttle),
                download.mobile_data,
                download.metadata.to_wire(),
                headers,
            ])?;
        for (place, file) in download.files.iter().enumerate() {
            save_file(&transaction, download.number, place, file)?;
        }
        if let (Shape::Single, [file]) = (download.shape, &download.files[..]) {
            save_classic(&transaction, download, file)?;
        }
        transaction.commit()
    }

    /// Writes what is known of one of its files.
    pub fn save_file(&self, download: &Download, place: usize) -> rusqlite::Result<()> {
        match download.files.get(place) {
            Some(file) => save_file(&self.database, download.number, place, file),
            None => Ok(()),
        }
    }

    /// Writes the state of a download and what else changes with it.
    pub fn save_state(&mut self, download: &Download) -> rusqlite::Result<()> {
        let over = download.machine.state().is_over();
        let transaction = self.database.transaction()?;
        transaction
            .prepare_cached(
                "UPDATE Download SET state = ?2, ran = ?3, throttle = ?4, mobile_data = ?5
                 WHERE number = ?1",
            )?
            .execute(params![
                signed(download.number),
                download.machine.state().text(),
                download.ran,
                signed(download.throttle),
                download.mobile_data,
            ])?;
        if let (Shape::Single, [file]) = (download.shape, &download.files[..]) {
            save_classic(&transaction, download, file)?;
        }
        if over {
            // What gave access is of no use any more.
            transaction.execute(
                "UPDATE Download SET headers = '{}', metadata = NULL WHERE number = ?1",
                [signed(download.number)],
            )?;
            transaction.execute(
                "DELETE FROM Download WHERE state IN ('cancel', 'finish', 'error') AND number <=
                    (SELECT number FROM Download WHERE state IN ('cancel', 'finish', 'error')
                     ORDER BY number DESC LIMIT 1 OFFSET ?1)",
                [HISTORY],
            )?;
            transaction.execute(
                "DELETE FROM DownloadFile WHERE number NOT IN (SELECT number FROM Download)",
                [],
            )?;
            transaction.execute(
                "DELETE FROM SingleDownload WHERE state IN ('cancel', 'finish', 'error')
                    AND uuid NOT IN (SELECT id FROM Download)",
                [],
            )?;
        }
        transaction.commit()
    }

    /// All downloads that are not over, in the order of creation.
    pub fn live(&self) -> rusqlite::Result<Vec<Download>> {
        let mut query = self.database.prepare(
            "SELECT number, id, shape, family, owner, confined, state, ran, throttle, mobile_data,
                metadata, headers
             FROM Download WHERE state NOT IN ('cancel', 'finish', 'error') ORDER BY number",
        )?;
        let rows = query.query_map([], read_download)?;
        let mut downloads: Vec<Download> = rows.flatten().flatten().collect();
        for download in &mut downloads {
            download.files = self.files(download.number)?;
        }
        downloads.retain(|download| !download.files.is_empty());
        Ok(downloads)
    }

    fn files(&self, number: u64) -> rusqlite::Result<Vec<File>> {
        let mut query = self.database.prepare_cached(
            "SELECT url, destination, stage, exact, hash, algorithm, total, device, inode, size, done
             FROM DownloadFile WHERE number = ?1 ORDER BY place",
        )?;
        let rows = query.query_map([signed(number)], read_file)?;
        rows.collect()
    }

    /// The number for the next download.
    pub fn next_number(&self) -> rusqlite::Result<u64> {
        let last: Option<i64> =
            self.database
                .query_row("SELECT MAX(number) FROM Download", [], |row| row.get(0))?;
        Ok(unsigned(last.unwrap_or_default()) + 1)
    }

    /// Takes over what the original's programs have left to be collected; `number` is for the first.
    pub fn inherited(&self, mut number: u64) -> rusqlite::Result<Vec<Download>> {
        let mut query = self.database.prepare(
            "SELECT uuid, appId, dbus_path, url, local_path, hash, hash_algo, total_size, metadata
             FROM SingleDownload WHERE state = 'uncoll' AND uuid NOT IN (SELECT id FROM Download)
             ORDER BY rowid",
        )?;
        let rows = query.query_map([], |row| {
            let inherited = read_classic(row, number)?;
            number += u64::from(inherited.is_some());
            Ok(inherited)
        })?;
        Ok(rows.flatten().flatten().collect())
    }

    /// What is known of a download by its id, also when it is over.
    pub fn known(&self, id: &str) -> rusqlite::Result<Option<Known>> {
        let read = |row: &Row<'_>| {
            let state: String = row.get(0)?;
            Ok(State::from_text(&state).map(|state| {
                Ok(Known {
                    state,
                    url: row.get(1)?,
                    path: row.get(2)?,
                    hash: row.get(3)?,
                })
            }))
        };
        let ours = self.database.query_row(
            "SELECT state, url, destination, hash FROM Download JOIN DownloadFile USING (number)
             WHERE id = ?1 AND place = 0",
            [id],
            read,
        );
        if let Some(Some(known)) = ours.optional()? {
            return known.map(Some);
        }
        let classic = self.database.query_row(
            "SELECT state, url, COALESCE(local_path, ''), COALESCE(hash, '') FROM SingleDownload
             WHERE uuid = ?1",
            [id],
            read,
        );
        classic.optional()?.flatten().transpose()
    }
}

fn save_file(
    database: &Connection,
    number: u64,
    place: usize,
    file: &File,
) -> rusqlite::Result<()> {
    let identity = file.identity;
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO DownloadFile
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
        )?
        .execute(params![
            signed(number),
            i64::try_from(place).unwrap_or(i64::MAX),
            file.url,
            file.destination.as_str(),
            file.stage.as_str(),
            file.exact,
            file.hash,
            file.algorithm,
            file.total.map(signed),
            identity.map(|one| signed(one.device)),
            identity.map(|one| signed(one.inode)),
            identity.map(|one| signed(one.size)),
            file.done,
        ])?;
    Ok(())
}

/// A row in the original's form: numbers as decimal text, maps as JSON.
fn save_classic(database: &Connection, download: &Download, file: &File) -> rusqlite::Result<()> {
    let headers = if download.machine.state().is_over() {
        "{}".to_owned()
    } else {
        serde_json::to_string_pretty(&download.headers).unwrap_or_default()
    };
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO SingleDownload(uuid, appId, url, dbus_path, local_path, hash,
                hash_algo, state, total_size, throttle, metadata, headers)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
        )?
        .execute(params![
            download.id,
            download.owner,
            file.url,
            ids::path(download.family, &download.tail()),
            file.destination.as_str(),
            file.hash,
            file.algorithm,
            download.machine.state().text(),
            file.total.unwrap_or_default().to_string(),
            download.throttle.to_string(),
            download.metadata.to_json(),
            headers,
        ])?;
    Ok(())
}

/// A download without its files; nothing if the row makes no sense.
fn read_download(row: &Row<'_>) -> rusqlite::Result<Option<Download>> {
    let (shape, family): (String, String) = (row.get(2)?, row.get(3)?);
    let state: String = row.get(6)?;
    let (Some(shape), Some(family), Some(state)) = (
        shape_from(&shape),
        family_from(&family),
        State::from_text(&state),
    ) else {
        return Ok(None);
    };
    let ran = row.get(7)?;
    let metadata: Option<Vec<u8>> = row.get(10)?;
    let headers: String = row.get(11)?;
    Ok(Some(Download {
        number: unsigned(row.get(0)?),
        id: row.get(1)?,
        family,
        owner: row.get(4)?,
        confined: row.get(5)?,
        metadata: metadata
            .and_then(|bytes| Metadata::from_wire(&bytes))
            .unwrap_or_default(),
        headers: serde_json::from_str(&headers).unwrap_or_default(),
        throttle: unsigned(row.get(8)?),
        mobile_data: row.get(9)?,
        machine: Machine::restored(shape.kind(), state, ran),
        ran,
        shape,
        files: Vec::new(),
        held: None,
        failure: None,
    }))
}

fn read_file(row: &Row<'_>) -> rusqlite::Result<File> {
    let path = |place| row.get::<_, String>(place).map(Utf8PathBuf::from);
    let number = |place| row.get::<_, Option<i64>>(place).map(|n| n.map(unsigned));
    let (device, inode, size) = (number(7)?, number(8)?, number(9)?);
    let identity = device.zip(inode).zip(size);
    Ok(File {
        url: row.get(0)?,
        destination: path(1)?,
        stage: path(2)?,
        exact: row.get(3)?,
        hash: row.get(4)?,
        algorithm: row.get(5)?,
        received: 0,
        total: number(6)?,
        identity: identity.map(|((device, inode), size)| Identity {
            device,
            inode,
            size,
        }),
        done: row.get(10)?,
    })
}

/// A download of the original's that waits to be collected; nothing if its path is nobody's.
fn read_classic(row: &Row<'_>, number: u64) -> rusqlite::Result<Option<Download>> {
    let path: String = row.get(2)?;
    let Some((family, tail)) = ids::split(&path) else {
        return Ok(None);
    };
    let (id, owner): (String, String) = (row.get(0)?, row.get(1)?);
    let text = |place| {
        row.get::<_, Option<String>>(place)
            .map(Option::unwrap_or_default)
    };
    let algorithm = match text(6)?.as_str() {
        MISSPELT => "sha256".to_owned(),
        other => other.to_owned(),
    };
    let mut file = File::new(row.get(3)?, text(4)?.into(), text(5)?, algorithm);
    file.total = text(7)?.parse().ok();
    file.done = true;
    Ok(Some(Download {
        number,
        confined: tail.contains('/').then(|| owner.clone()),
        id,
        family,
        owner,
        metadata: Metadata::from_json(&text(8)?).unwrap_or_default(),
        headers: BTreeMap::new(),
        throttle: 0,
        mobile_data: true,
        machine: Machine::restored(Shape::Single.kind(), State::Uncollected, true),
        ran: true,
        shape: Shape::Single,
        files: vec![file],
        held: None,
        failure: None,
    }))
}

/// SQLite's numbers are signed; what is larger than any file fits in all the same.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

const SHAPES: [(Shape, &str); 3] = [
    (Shape::Single, "single"),
    (Shape::Message, "message"),
    (Shape::Group, "group"),
];

fn shape_text(shape: Shape) -> &'static str {
    SHAPES[shape as usize].1
}

fn shape_from(text: &str) -> Option<Shape> {
    let found = SHAPES.iter().find(|(_, known)| *known == text);
    found.map(|(shape, _)| *shape)
}

fn family_text(family: Family) -> &'static str {
    match family {
        Family::Canonical => "canonical",
        Family::Lomiri => "lomiri",
    }
}

fn family_from(text: &str) -> Option<Family> {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family_text(*family) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::machine::Told;

    fn sample(number: u64, shape: Shape) -> Download {
        let mut metadata = Metadata::default();
        metadata.set("title", "t");
        metadata.set("n", 7_u32);
        let mut file = File::new(
            "http://h/a".into(),
            "/d/a".into(),
            "ab".into(),
            "md5".into(),
        );
        file.total = Some(u64::MAX);
        file.identity = Some(Identity {
            device: 1,
            inode: u64::MAX,
            size: 3,
        });
        Download {
            number,
            id: format!("id{number}"),
            family: Family::Canonical,
            owner: "app".into(),
            confined: Some("app".into()),
            metadata,
            headers: BTreeMap::from([("Cookie".into(), "a=b".into())]),
            throttle: 5,
            mobile_data: false,
            machine: Machine::new(shape.kind()),
            ran: false,
            shape,
            files: vec![file.clone(), file],
            held: None,
            failure: None,
        }
    }

    #[test]
    fn a_download_survives_the_process() {
        let place = tempfile::tempdir().unwrap();
        let place = Utf8Path::from_path(place.path())
            .unwrap()
            .join("a/b/downloads.db");
        let mut records = Records::open(&place).unwrap();
        let mut download = sample(4, Shape::Group);
        records.save(&download).unwrap();
        download.machine.told(Told::Start);
        download.machine.told(Told::Granted);
        download.ran = true;
        records.save_state(&download).unwrap();
        download.files[1].done = true;
        records.save_file(&download, 1).unwrap();
        drop(records);

        let records = Records::open(&place).unwrap();
        let live = records.live().unwrap();
        let [again] = &live[..] else {
            panic!("{live:?}");
        };
        assert_eq!(again.files, download.files);
        assert_eq!(again.metadata.map(), download.metadata.map());
        assert_eq!(again.headers, download.headers);
        assert_eq!(again.machine.state(), State::Start);
        assert_eq!(
            (again.number, &again.id, again.throttle, again.mobile_data),
            (4, &download.id, 5, false)
        );
        assert_eq!(again.confined, download.confined);
        assert_eq!(records.next_number().unwrap(), 5);
    }

    #[test]
    fn what_is_over_is_known_for_a_while() {
        let mut records = Records::fleeting().unwrap();
        for number in 1..=u64::from(HISTORY) + 2 {
            let mut download = sample(number, Shape::Group);
            records.save(&download).unwrap();
            download.machine.told(Told::Cancel);
            records.save_state(&download).unwrap();
        }
        assert!(records.live().unwrap().is_empty());
        assert_eq!(records.known("id1").unwrap(), None);
        let last = records.known("id1002").unwrap().unwrap();
        assert_eq!(last.state, State::Cancel);
        let secrets: i64 = records
            .database
            .query_row(
                "SELECT COUNT(*) FROM Download WHERE headers LIKE '%Cookie%'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(secrets, 0);
        assert_eq!((&last.url[..], &last.path[..]), ("http://h/a", "/d/a"));
    }

    #[test]
    fn the_originals_rows_are_written_and_taken_over() {
        let mut records = Records::fleeting().unwrap();
        let mut download = sample(1, Shape::Single);
        download.files.truncate(1);
        records.save(&download).unwrap();
        let row: (String, String, String, String) = records
            .database
            .query_row(
                "SELECT dbus_path, total_size, state, throttle FROM SingleDownload",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .unwrap();
        let path = "/com/canonical/applications/download/app/id1";
        let texts = [path, "18446744073709551615", "idle", "5"].map(str::to_owned);
        assert_eq!([row.0, row.1, row.2, row.3], texts);

        records
            .database
            .execute_batch(
                "INSERT INTO SingleDownload VALUES ('u', '', 'http://h/b',
                    '/com/lomiri/applications/download/u', '/d/b', 'cd', 'shq256', 'uncoll', '12',
                    '0', '{\"title\": \"old\"}', '{}');
                 INSERT INTO SingleDownload VALUES ('v', '', 'http://h/c', '/elsewhere/v', '/d/c', '',
                    '', 'uncoll', '', '', '', '');
                 INSERT INTO SingleDownload VALUES ('w', '', 'http://h/d',
                    '/com/lomiri/applications/download/w', '/d/d', '', 'md5', 'start', '', '', '', '');",
            )
            .unwrap();
        let inherited = records.inherited(9).unwrap();
        let [old] = &inherited[..] else {
            panic!("{inherited:?}");
        };
        assert_eq!((old.number, &old.id[..]), (9, "u"));
        assert_eq!(old.machine.state(), State::Uncollected);
        assert_eq!(old.files[0].algorithm, "sha256");
        assert_eq!(old.metadata.text("title"), "old");
        assert_eq!(records.known("w").unwrap().unwrap().state, State::Start);
        assert_eq!(records.known("x").unwrap(), None);
    }
}

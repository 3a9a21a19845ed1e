//! The settings database, which the original's programs read and write too (client spec,
//! section 4): one SQLite table of keys and values, all of them text.
//!
//! It is opened for each access, so what one program sets the others see at once.

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::automatic::HOLD;
use crate::files;

/// How long to wait for another program that writes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What is downloaded without being asked for (key `auto_download`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoDownload {
    /// Nothing.
    Never,
    /// Updates, on networks that cost nothing.
    OnWifi,
    /// Updates, on any network.
    Always,
}

impl AutoDownload {
    /// The key.
    pub const KEY: &str = "auto_download";

    /// Any other value allows mobile data, and yet starts nothing, as in the original.
    fn of(text: &str) -> Self {
        match text {
            "1" => Self::OnWifi,
            "2" => Self::Always,
            _ => Self::Never,
        }
    }
}

/// The key of the least battery, in percent, at which updates are applied.
pub const MIN_BATTERY: &str = "min_battery";

/// The key of the time of the last check.
pub const LAST_CHECK: &str = "last_check_date";

/// A setting that means something to us or to the original's programs.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its key.
    pub key: &'static str,
    /// The value where it is not set; empty where there is none then.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// The settings that mean something; any other may be stored beside them.
pub const KNOWN: [Known; 5] = [
    Known {
        key: AutoDownload::KEY,
        default: "1",
        about: "What is downloaded unasked: 0: nothing; 1: updates, on networks that cost nothing; \
                2: updates, on any network. With another value than 1 a download that was asked for \
                may use mobile data.",
    },
    Known {
        key: MIN_BATTERY,
        default: "",
        about: "Percentage, 0 to 100, below which nothing is applied while the battery discharges.",
    },
    Known {
        key: HOLD,
        default: "",
        about: "forever, or the date, YYYY-MM-DD, from which on something is done unasked again.",
    },
    Known {
        key: "failures_before_warning",
        default: "",
        about: "Kept for the settings application.",
    },
    Known {
        key: LAST_CHECK,
        default: "",
        about: "When the service last told the result of a check, in local time; written by it.",
    },
];

/// The settings at the configured place.
#[derive(Clone, Debug)]
pub struct Settings {
    place: Utf8PathBuf,
}

impl Settings {
    /// The settings at `place`, or in the user's cache where that cannot be opened.
    pub fn at(place: &Utf8Path) -> Self {
        Self {
            place: place.to_owned(),
        }
    }

    /// The value of a key; empty when there is none, but for `auto_download`.
    pub fn get(&self, key: &str) -> anyhow::Result<String> {
        let found = match self.reader() {
            None => None,
            Some(database) => database
                .query_row(
                    "SELECT CAST(value AS TEXT) FROM settings WHERE key = ?1",
                    [key],
                    |row| row.get::<_, Option<String>>(0),
                )
                .optional()
                .with_context(|| self.unreadable())?
                .flatten(),
        };
        Ok(found.unwrap_or_else(|| {
            let known = KNOWN.iter().find(|known| known.key == key);
            known.map_or("", |known| known.default).to_owned()
        }))
    }

    /// All keys and values, sorted, without those that begin with `_`.
    pub fn all(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some(database) = self.reader() else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut query = database.prepare(
                "SELECT CAST(key AS TEXT), COALESCE(CAST(value AS TEXT), '') FROM settings \
                 WHERE key IS NOT NULL ORDER BY 1",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let mut all = read().with_context(|| self.unreadable())?;
        all.retain(|(key, _): &(String, String)| !key.starts_with('_'));
        Ok(all)
    }

    /// Stores a value.
    pub fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        self.write(|database| {
            let changed = database.execute(
                "UPDATE settings SET value = ?2 WHERE key = ?1",
                params![key, value],
            )?;
            if changed == 0 {
                database.execute("INSERT INTO settings VALUES (?1, ?2)", params![key, value])?;
            }
            Ok(())
        })
    }

    /// Forgets a key; one that is not there is forgotten already.
    pub fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.write(|database| {
            database.execute("DELETE FROM settings WHERE key = ?1", [key])?;
            Ok(())
        })
    }

    /// What may be downloaded unasked.
    pub fn auto_download(&self) -> anyhow::Result<AutoDownload> {
        Ok(AutoDownload::of(&self.get(AutoDownload::KEY)?))
    }

    /// The least battery for applying, in percent; none is asked for unless it was set.
    pub fn min_battery(&self) -> anyhow::Result<Option<u8>> {
        Ok(self.get(MIN_BATTERY)?.trim().parse().ok())
    }

    fn write(&self, change: impl Fn(&Connection) -> rusqlite::Result<()>) -> anyhow::Result<()> {
        let mut database = self.writer()?;
        let mut all = || {
            let transaction =
                database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            // One mark of the version: the original writes one each time.
            transaction.execute_batch(
                "CREATE TABLE IF NOT EXISTS settings (key, value);
                 INSERT INTO settings SELECT '__version__', '1'
                 WHERE NOT EXISTS (SELECT 1 FROM settings WHERE key = '__version__');",
            )?;
            change(&transaction)?;
            transaction.commit()
        };
        all().with_context(|| format!("cannot write the settings in `{}`", self.place))
    }

    /// A connection for writing; the file is made where there is none.
    fn writer(&self) -> anyhow::Result<Connection> {
        let open = |place: &Utf8Path| -> anyhow::Result<Connection> {
            files::make_directory(place.parent().context("a file has a directory")?)?;
            let database = Connection::open(place)?;
            database.busy_timeout(PATIENCE)?;
            // Opening does not look at the file, this does; a file that is no database, too.
            database.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
            Ok(database)
        };
        open(&self.place).or_else(|error| match fallback() {
            Some(other) => open(&other),
            None => Err(error.context(format!("cannot open the settings in `{}`", self.place))),
        })
    }

    /// A connection for reading, if there is something to read.
    fn reader(&self) -> Option<Connection> {
        let open = |place: &Utf8Path| -> rusqlite::Result<Connection> {
            let database = Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            database.busy_timeout(PATIENCE)?;
            let tables = "SELECT 1 FROM sqlite_master WHERE name = 'settings'";
            database.query_row(tables, [], |_| Ok(()))?;
            Ok(database)
        };
        open(&self.place)
            .ok()
            .or_else(|| fallback().and_then(|other| open(&other).ok()))
    }

    fn unreadable(&self) -> String {
        format!("cannot read the settings in `{}`", self.place)
    }
}

/// Where settings go that cannot be where they should.
fn fallback() -> Option<Utf8PathBuf> {
    Some(files::user_cache()?.join("lib/settings.db"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> (tempfile::TempDir, Settings) {
        let place = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(place.path().join("a/settings.db")).unwrap();
        let settings = Settings::at(&path);
        (place, settings)
    }

    #[test]
    fn what_is_set_is_there_until_it_is_deleted() {
        let (_place, settings) = settings();
        assert_eq!(settings.get("auto_download").unwrap(), "1");
        assert_eq!(settings.get("x").unwrap(), "");
        settings.delete("x").unwrap();
        for value in ["1", "2=3", "ä"] {
            settings.set("x", value).unwrap();
            assert_eq!(settings.get("x").unwrap(), value);
        }
        settings.set("_hidden", "1").unwrap();
        settings.set("auto_download", "2").unwrap();
        let all = settings.all().unwrap();
        let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(all, [("auto_download", "2"), ("x", "ä")]);
        settings.delete("x").unwrap();
        assert_eq!(settings.get("x").unwrap(), "");
        assert_eq!(settings.auto_download().unwrap(), AutoDownload::Always);
    }

    #[test]
    fn a_database_of_the_original_with_many_marks_of_its_version_is_read() {
        let (_place, settings) = settings();
        settings.set("min_battery", "30").unwrap();
        let database = Connection::open(&settings.place).unwrap();
        let more = "INSERT INTO settings VALUES ('__version__', 1), ('__version__', 1);
                    INSERT INTO settings VALUES ('number', 7), ('nothing', NULL);";
        database.execute_batch(more).unwrap();
        drop(database);
        assert_eq!(settings.min_battery().unwrap(), Some(30));
        assert_eq!(settings.get("number").unwrap(), "7");
        assert_eq!(settings.get("nothing").unwrap(), "");
        let keys: Vec<_> = (settings.all().unwrap().into_iter())
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["min_battery", "nothing", "number"]);
    }

    #[test]
    fn the_mark_of_the_version_is_written_once() {
        let (_place, settings) = settings();
        settings.set("x", "1").unwrap();
        settings.set("x", "2").unwrap();
        let database = Connection::open(&settings.place).unwrap();
        let count = "SELECT COUNT(*), MIN(value) FROM settings WHERE key = '__version__'";
        let found: (u32, String) = database
            .query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(found, (1, "1".to_owned()));
    }
}

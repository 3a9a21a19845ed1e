//! What this process is and where its files go (specification, sections 1, 10, 12 and 17).

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_bus::download::Family;

use crate::daemon::core::Host;
use crate::job::names::{Home, program};
use crate::log;
use crate::options::Options;

/// The database's name.
const DATABASE: &str = "downloads.db";

/// Looks at the process and its environment.
pub fn look(options: &Options) -> Host {
    let user = rustix::process::geteuid().as_raw();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    Host {
        user,
        privileged: user == 0 || has_capabilities(&status),
        apparmor: apparmor.is_ok_and(|text| text.starts_with('Y')),
        stoppable: options.stoppable,
        home: match &options.state_dir {
            Some(directory) => Home::System {
                temporary: directory.join("Downloads"),
            },
            None if user == 0 => Home::System {
                temporary: variable("TMPDIR").unwrap_or_else(|| "/tmp".into()),
            },
            None => {
                let home = variable("HOME").unwrap_or_else(|| "/".into());
                let data = variable("XDG_DATA_HOME");
                Home::User {
                    data: data.unwrap_or_else(|| home.join(".local/share")),
                    home,
                }
            }
        },
    }
}

/// A path in the environment; relative ones count as none.
fn variable(name: &str) -> Option<Utf8PathBuf> {
    let path = Utf8PathBuf::from(std::env::var(name).ok()?);
    path.is_absolute().then_some(path)
}

/// Whether the process may do more than its user.
fn has_capabilities(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // What cannot be read is taken for all of them.
    line.is_none_or(|mask| mask.trim().bytes().any(|digit| digit != b'0'))
}

/// Where the database is. A user's that is missing is begun with what the older generation has left.
pub fn database(options: &Options, host: &Host) -> Utf8PathBuf {
    if let Some(directory) = &options.state_dir {
        return directory.join(DATABASE);
    }
    match &host.home {
        Home::System { .. } => of_system(Family::Lomiri),
        Home::User { data, .. } => {
            let ours = of_user(data, Family::Lomiri);
            let older = of_user(data, Family::Canonical);
            if !ours.exists()
                && older.exists()
                && let Some(parent) = ours.parent()
            {
                let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(&older, &ours));
                if let Err(error) = copied {
                    log::say(format_args!("`{older}` cannot be taken over: {error}"));
                }
            }
            ours
        }
    }
}

fn of_system(family: Family) -> Utf8PathBuf {
    Utf8Path::new("/var/cache")
        .join(program(family))
        .join(DATABASE)
}

/// The program's name twice, as the original has it.
fn of_user(data: &Utf8Path, family: Family) -> Utf8PathBuf {
    let program = program(family);
    data.join(program).join(program).join(DATABASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_capability_is_a_privilege() {
        for (status, want) in [
            ("Name:\tx\nCapEff:\t0000000000000000\n", false),
            ("CapEff:\t0000000000000400\n", true),
            ("", true),
        ] {
            assert_eq!(has_capabilities(status), want, "{status}");
        }
    }

    #[test]
    fn the_older_generations_database_is_taken_over_once() {
        let place = tempfile::tempdir().unwrap();
        let data = Utf8Path::from_path(place.path()).unwrap();
        let host = Host {
            user: 7,
            privileged: false,
            apparmor: false,
            stoppable: false,
            home: Home::User {
                data: data.to_owned(),
                home: data.to_owned(),
            },
        };
        let older = of_user(data, Family::Canonical);
        fs::create_dir_all(older.parent().unwrap()).unwrap();
        fs::write(&older, "one").unwrap();
        let ours = database(&Options::default(), &host);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "one");
        fs::write(&older, "two").unwrap();
        assert_eq!(database(&Options::default(), &host), ours);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "one");
    }
}

//! The keys of the client's configuration: what the parser knows and what the manual says.
//!
//! A key that is not here cannot be read, so none is without an explanation.

use super::HookName;

/// A section of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, in lower case.
    pub name: &'static str,
    /// What kind of value it takes.
    pub takes: &'static str,
    /// The value where it is missing; none where there is none then.
    pub default: Option<&'static str>,
    /// What it is for.
    pub about: &'static str,
}

impl Key {
    const fn new(name: &'static str, takes: &'static str, about: &'static str) -> Self {
        Self {
            name,
            takes,
            default: None,
            about,
        }
    }

    const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }
}

/// Everything that is read.
pub const SECTIONS: [Section; 8] = [
    Section {
        name: "service",
        about: "The server, and what is installed. Images bring a file with this section.",
        keys: &[
            Key::new("base", "host", "Host name of the server.").or("system-image.ubports.com"),
            Key::new(
                "http_port",
                "port",
                "Port for payloads, whose safety rests on signature and digest. If it is disabled \
                 they come like the metadata.",
            )
            .or("80"),
            Key::new(
                "https_port",
                "port",
                "Port for keyrings, channels and indexes. If it is disabled they come without \
                 encryption. Both cannot be disabled.",
            )
            .or("443"),
            Key::new("channel", "channel", "The channel to follow.").or("daily"),
            Key::new("build_number", "number", "The installed version.").or("0"),
            Key::new(
                "device",
                "name",
                "The device's name. Where it is missing or empty, the device hook finds it.",
            ),
            Key::new(
                "channel_target",
                "channel",
                "The channel that an alias followed when the image was made. If the server has \
                 pointed the alias elsewhere since then, a full image is taken.",
            ),
            Key::new(
                "version_detail",
                "list",
                "What the installed image is made of, as KEY=VALUE with commas in between.",
            ),
        ],
    },
    Section {
        name: "system",
        about: "The client's own files.",
        keys: &[
            Key::new("timeout", "interval", "Checked and used for nothing, as by the original.")
                .or("1h"),
            Key::new(
                "tempdir",
                "path",
                "Takes the index, a few megabytes, while it is read. It is made when it is missing, \
                 and nothing stays there.",
            )
            .or("/tmp"),
            Key::new("logfile", "path", "The log.").or("/var/log/system-image/client.log"),
            Key::new("loglevel", "levels", "How much is logged.").or("info"),
            Key::new(
                "settings_db",
                "path",
                "The settings, an SQLite database that other programs read and write too.",
            )
            .or("/var/lib/system-image/settings.db"),
        ],
    },
    Section {
        name: "gpg",
        about: "Keyrings; each has its signature beside it, with the suffix .asc.",
        keys: &[
            Key::new(
                "archive_master",
                "path",
                "The trust root, which is installed with the device and never fetched.",
            )
            .or("/usr/share/system-image/archive-master.tar.xz"),
            Key::new("image_master", "path", "Kept between runs.")
                .or("/var/lib/system-image/keyrings/image-master.tar.xz"),
            Key::new("image_signing", "path", "Kept between runs.")
                .or("/var/lib/system-image/keyrings/image-signing.tar.xz"),
            Key::new(
                "device_signing",
                "path",
                "Fetched by each run for a device that has one, and removed for one that has none.",
            )
            .or("/var/lib/system-image/keyrings/device-signing.tar.xz"),
        ],
    },
    Section {
        name: "updater",
        about: "Where updates go, and what brings them.",
        keys: &[
            Key::new(
                "cache_partition",
                "path",
                "The drop box, in which the upgrader finds payloads, keyrings and the command file. \
                 It is made when it is missing.",
            )
            .or("/android/cache/recovery"),
            Key::new(
                "data_partition",
                "path",
                "Holds the blacklist, and below state what is known from one run to the next.",
            )
            .or("/var/lib/system-image"),
            Key::new(
                "downloader",
                "downloader",
                "What brings payloads. Beyond the original.",
            )
            .or("auto"),
            Key::new(
                "patch_memory",
                "MiB",
                "Memory that the upgrader has for applying patches, which are smaller than deltas; 0 \
                 where it cannot apply them. Beyond the original.",
            )
            .or("0"),
        ],
    },
    Section {
        name: "hooks",
        about: "Replaceable parts.",
        keys: &[
            Key::new(
                "device",
                "hook",
                "Finds the device's name. The usual one asks getprop, then device-info.",
            )
            .or(HookName::SYSTEM_PROPERTY),
            Key::new(
                "scorer",
                "hook",
                "Rates the ways to a version. Only the usual one is known, and it is always used.",
            )
            .or(HookName::WEIGHTED_SCORER),
            Key::new(
                "apply",
                "hook",
                "What to do with a prepared update: restart into the recovery, nothing \
                 (systemimage.apply.Noop), or run a program, given by its path, with the path of \
                 the command file.",
            )
            .or(HookName::REBOOT),
        ],
    },
    Section {
        name: "dbus",
        about: "The service on the bus.",
        keys: &[Key::new(
            "lifetime",
            "interval",
            "After so long without a call it exits; it is started again by the next one, and nothing \
             is forgotten.",
        )
        .or("10m")],
    },
    Section {
        name: "automatic",
        about: "What is done without being asked. Beyond the original, which ignores it.",
        keys: &[
            Key::new(
                "apply",
                "choice",
                "Whether system-image-cli --automatic, which the timer runs, also applies.",
            )
            .or("no"),
            Key::new(
                "window",
                "window",
                "The part of the day in which it does; any, where it is missing.",
            ),
            Key::new(
                "defer",
                "interval",
                "How long after the device first saw a version nothing is done with it.",
            )
            .or("0d"),
        ],
    },
    Section {
        name: "downloads",
        about: "How patient to be with a server. Beyond the original, which ignores it.",
        keys: &[
            Key::new("connect_timeout", "timeout", "Longest time to reach a server.").or("30s"),
            Key::new(
                "stall_timeout",
                "timeout",
                "Longest time in which less than 1 KiB arrives.",
            )
            .or("1m"),
            Key::new(
                "attempts",
                "count",
                "Attempts at a file without progress in between, the first included.",
            )
            .or("5"),
            Key::new(
                "retry_wait",
                "interval",
                "Wait after the first failed attempt. It doubles with each further one, up to a \
                 minute.",
            )
            .or("1s"),
        ],
    },
];

/// What kinds of values there are.
pub const VALUES: [(&str, &str); 16] = [
    ("host", "A host name or address."),
    ("port", "A number, or disabled."),
    (
        "channel",
        "Parts of ASCII letters, digits, dots, underscores and hyphens, with slashes in between.",
    ),
    (
        "name",
        "ASCII letters, digits, dots, underscores and hyphens.",
    ),
    ("number", "A version: a whole number."),
    ("count", "A number above 0."),
    ("MiB", "A number of MiB."),
    ("list", "KEY=VALUE,KEY=VALUE"),
    (
        "path",
        "A path; ~ is the home directory, and a relative one starts from the working directory.",
    ),
    (
        "interval",
        "Numbers with the units w, d, h, m, s in this order, each at most once, such as 1d12h, \
         1.5h or 90m.",
    ),
    ("timeout", "An interval above 0."),
    (
        "window",
        "Two times of the day, such as 02:00-05:00, in local time; over midnight where the first is \
         the later one.",
    ),
    (
        "levels",
        "debug, info, warning, error or critical; MAIN:DBUS for another level of the service.",
    ),
    (
        "downloader",
        "built-in, manager (the download manager on the system bus), or auto: the manager if there \
         is one.",
    ),
    ("hook", "A dotted name, or the path of a program."),
    ("choice", "yes or no."),
];

/// A key of the table.
///
/// # Panics
/// For one that is not there.
pub(super) fn find(section: &str, name: &str) -> &'static Key {
    let keys = (SECTIONS.iter())
        .filter(|known| known.name == section)
        .flat_map(|known| known.keys);
    let mut named = keys.filter(|key| key.name == name);
    named.next().expect("what is read is in the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_is_explained() {
        for key in SECTIONS.iter().flat_map(|section| section.keys) {
            let explained = VALUES.iter().any(|(name, _)| *name == key.takes);
            assert!(explained, "{}: {}", key.name, key.takes);
        }
    }
}

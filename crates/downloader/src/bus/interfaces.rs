//! The interfaces on the bus (specification, section 4), as tables: introspection is written from them,
//! and calls are checked against them.

use system_image_bus::download::Family;

/// A member of an interface.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    /// A method: its name, what goes in, what comes out, as pairs of name and type.
    Method(&'static str, Arguments, Arguments),
    /// A signal.
    Signal(&'static str, Arguments),
    /// A property that can only be read.
    Property(&'static str, &'static str),
}

/// Names and types.
pub type Arguments = &'static [(&'static str, &'static str)];

use Member::{Method, Property, Signal};

const NONE: Arguments = &[];
const REQUEST: &str = "(sssa{sv}a{ss})";
const STATE: &str = "(isssa{sv})";

/// Which interface of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The manager's, of a family.
    Manager(Family),
    /// A download's of one file, of a family.
    Download(Family),
    /// A group's, of a family.
    Group(Family),
    /// Ours of the manager.
    OurManager,
    /// Ours of a download or group.
    OurDownload,
    /// `org.freedesktop.DBus.Introspectable`.
    Introspectable,
    /// `org.freedesktop.DBus.Peer`.
    Peer,
    /// `org.freedesktop.DBus.Properties`.
    Properties,
}

impl Interface {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager(family) => family.manager(),
            Self::Download(family) => family.download(),
            Self::Group(family) => family.group(),
            Self::OurManager => "com.canonical.SystemImage.Downloader1",
            Self::OurDownload => "com.canonical.SystemImage.Download1",
            Self::Introspectable => "org.freedesktop.DBus.Introspectable",
            Self::Peer => "org.freedesktop.DBus.Peer",
            Self::Properties => "org.freedesktop.DBus.Properties",
        }
    }

    /// Its members.
    pub const fn members(self) -> &'static [Member] {
        match self {
            Self::Manager(_) => MANAGER,
            Self::Download(_) => DOWNLOAD,
            Self::Group(_) => GROUP,
            Self::OurManager => OUR_MANAGER,
            Self::OurDownload => OUR_DOWNLOAD,
            Self::Introspectable => &[Method("Introspect", NONE, &[("xml_data", "s")])],
            Self::Peer => &[
                Method("Ping", NONE, NONE),
                Method("GetMachineId", NONE, &[("machine_uuid", "s")]),
            ],
            Self::Properties => PROPERTIES,
        }
    }

    /// The types that a method takes, in each of its forms; none if there is no such method.
    pub fn forms(self, method: &str) -> impl Iterator<Item = String> {
        self.members()
            .iter()
            .filter_map(move |member| match member {
                Method(name, ins, _) if *name == method => {
                    Some(ins.iter().map(|(_, kind)| *kind).collect())
                }
                _ => None,
            })
    }

    /// The names of its properties.
    pub fn properties(self) -> impl Iterator<Item = &'static str> {
        self.members().iter().filter_map(|member| match member {
            Property(name, _) => Some(*name),
            _ => None,
        })
    }
}

const MANAGER: &[Member] = &[
    Method(
        "createDownload",
        &[("download", REQUEST)],
        &[("downloadPath", "o")],
    ),
    Method(
        "createMmsDownload",
        &[("url", "s"), ("hostname", "s"), ("port", "i")],
        &[("downloadPath", "o")],
    ),
    Method(
        "createDownloadGroup",
        &[
            ("downloads", "a(sss)"),
            ("algorithm", "s"),
            ("allowed3G", "b"),
            ("metadata", "a{sv}"),
            ("headers", "a{ss}"),
        ],
        &[("download", "o")],
    ),
    Method(
        "getAllDownloads",
        &[("appId", "s"), ("uncollected", "b")],
        &[("downloads", "ao")],
    ),
    // As it was until 2015, and as the update client calls it. Of two forms some libraries keep the
    // last, so this one is.
    Method("getAllDownloads", NONE, &[("downloads", "ao")]),
    Method(
        "getAllDownloadsWithMetadata",
        &[("name", "s"), ("value", "s")],
        &[("downloads", "ao")],
    ),
    Method(
        "getDownloadState",
        &[("downloadId", "s")],
        &[("state", STATE)],
    ),
    Method("setDefaultThrottle", &[("speed", "t")], NONE),
    Method("defaultThrottle", NONE, &[("speed", "t")]),
    Method("allowGSMDownload", &[("allowed", "b")], NONE),
    Method("isGSMDownloadAllowed", NONE, &[("allowed", "b")]),
    Method("exit", NONE, NONE),
    Signal("downloadCreated", &[("path", "o")]),
];

const SUCCESS: Arguments = &[("success", "b")];
const NUMBERED: Arguments = &[("error", "(is)")];
const NUMBERED_OF: Arguments = &[("url", "s"), ("error", "(is)")];
const BYTES: Arguments = &[("received", "t"), ("total", "t")];

const DOWNLOAD: &[Member] = &[
    Method("start", NONE, NONE),
    Method("pause", NONE, NONE),
    Method("resume", NONE, NONE),
    Method("cancel", NONE, NONE),
    Method("collected", NONE, NONE),
    Method("state", NONE, &[("state", "i")]),
    Method("progress", NONE, &[("received", "t")]),
    Method("totalSize", NONE, &[("total", "t")]),
    Method("filePath", NONE, &[("filepath", "s")]),
    Method("metadata", NONE, &[("data", "a{sv}")]),
    Method("setMetadata", &[("data", "a{sv}")], NONE),
    Method("headers", NONE, &[("headers", "a{ss}")]),
    Method("setHeaders", &[("headers", "a{ss}")], NONE),
    Method("throttle", NONE, &[("speed", "t")]),
    Method("setThrottle", &[("speed", "t")], NONE),
    Method("allowGSMDownload", &[("allowed", "b")], NONE),
    Method("isGSMDownloadAllowed", NONE, &[("allowed", "b")]),
    Method("setDestinationDir", &[("path", "s")], NONE),
    Signal("started", SUCCESS),
    Signal("paused", SUCCESS),
    Signal("resumed", SUCCESS),
    Signal("canceled", SUCCESS),
    Signal("progress", BYTES),
    Signal("processing", &[("path", "s")]),
    Signal("finished", &[("path", "s")]),
    Signal("error", &[("error", "s")]),
    Signal("authError", NUMBERED),
    Signal("httpError", NUMBERED),
    Signal("networkError", NUMBERED),
    Signal("processError", &[("error", "(isiss)")]),
    Signal("hashError", &[("error", "(sss)")]),
    Property("Title", "s"),
    Property("ShowInIndicator", "b"),
    Property("ClickPackage", "s"),
    Property("DestinationApp", "s"),
];

const GROUP: &[Member] = &[
    Method("start", NONE, NONE),
    Method("pause", NONE, NONE),
    Method("resume", NONE, NONE),
    Method("cancel", NONE, NONE),
    Method(
        "progress",
        NONE,
        &[
            ("count", "t"),
            ("started", "t"),
            ("paused", "t"),
            ("finished", "t"),
        ],
    ),
    Method("totalSize", NONE, &[("total", "t")]),
    Method("metadata", NONE, &[("data", "a{sv}")]),
    Method("throttle", NONE, &[("speed", "t")]),
    Method("setThrottle", &[("speed", "t")], NONE),
    Method("allowGSMDownload", &[("allowed", "b")], NONE),
    Method("isGSMDownloadAllowed", NONE, &[("allowed", "b")]),
    Signal("started", SUCCESS),
    Signal("paused", SUCCESS),
    Signal("resumed", SUCCESS),
    Signal("canceled", SUCCESS),
    Signal("progress", BYTES),
    Signal("processing", &[("path", "s")]),
    Signal("finished", &[("paths", "as")]),
    Signal("error", &[("error", "s")]),
    Signal("authError", NUMBERED_OF),
    Signal("httpError", NUMBERED_OF),
    Signal("networkError", NUMBERED_OF),
    Signal("processError", &[("url", "s"), ("error", "(isiss)")]),
];

const OUR_MANAGER: &[Member] = &[Method("List", NONE, &[("downloads", "aa{sv}")])];

const OUR_DOWNLOAD: &[Member] = &[
    Signal("Waits", &[("reason", "s"), ("text", "s")]),
    Property("Activity", "s"),
    Property("Eta", "d"),
    Property("Path", "s"),
    Property("Owner", "s"),
    Property("Received", "t"),
    Property("Speed", "t"),
    Property("Total", "t"),
    Property("Urls", "as"),
    Property("WaitsFor", "s"),
];

const PROPERTIES: &[Member] = &[
    Method(
        "Get",
        &[("interface_name", "s"), ("property_name", "s")],
        &[("value", "v")],
    ),
    Method("GetAll", &[("interface_name", "s")], &[("values", "a{sv}")]),
    Method(
        "Set",
        &[
            ("interface_name", "s"),
            ("property_name", "s"),
            ("value", "v"),
        ],
        NONE,
    ),
    Signal(
        "PropertiesChanged",
        &[
            ("interface_name", "s"),
            ("changed_properties", "a{sv}"),
            ("invalidated_properties", "as"),
        ],
    ),
];

/// What every object answers to.
pub const COMMON: [Interface; 3] = [
    Interface::Introspectable,
    Interface::Peer,
    Interface::Properties,
];

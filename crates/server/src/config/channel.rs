//! A channel's section: what its images are made of, and how many are kept.

use system_image_formats::ini::Ini;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use super::source::Source;
use super::{ConfigError, list, number_of, text};

/// How a channel is configured (server spec, section 12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Whether the importer fills it.
    pub auto: bool,
    /// The number of its first image.
    pub versionbase: ImageVersion,
    /// How many full images are kept; 0 keeps all.
    pub fullcount: u32,
    /// The channels whose newest image a delta leads from; the channel itself when empty.
    pub deltabase: Vec<ChannelName>,
    /// How many of the channel's own newest full images a delta leads from; a key of our own,
    /// `deltas`.
    pub deltas: u32,
    /// Memory in bytes that devices have for applying patches, which then stand beside deltas; a key
    /// of our own, `patch_memory`, in MiB. 0, the default, for none.
    pub patch_memory: u64,
    /// What an image consists of, in order.
    pub files: Vec<FileRule>,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRule {
    /// Its name in the configuration.
    pub name: String,
    /// The only device that it is for.
    pub device: Option<DeviceName>,
    /// What makes it.
    pub source: Source,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            auto: false,
            versionbase: ImageVersion::new(1),
            fullcount: 0,
            deltabase: Vec::new(),
            deltas: 1,
            patch_memory: 0,
            files: Vec::new(),
        }
    }
}

const KEYS: [&str; 7] = [
    "type",
    "versionbase",
    "fullcount",
    "deltabase",
    "deltas",
    "patch_memory",
    "files",
];

impl ChannelConfig {
    /// The section of the channel `name`.
    pub(super) fn of(ini: &Ini, name: &str) -> Result<Self, ConfigError> {
        let section = format!("channel_{name}");
        if !ini.sections().any(|found| found == section) {
            return Err(ConfigError::NoSection(section));
        }
        if let Some(key) = ini
            .keys(&section)
            .find(|key| !KEYS.contains(key) && !key.starts_with("file_"))
        {
            return Err(ConfigError::UnknownKey {
                key: key.to_owned(),
                section: section.clone(),
            });
        }
        let auto = match text(ini, &section, "type").as_deref() {
            None | Some("manual") => false,
            Some("auto") => true,
            Some(value) => {
                return Err(ConfigError::Value {
                    value: value.to_owned(),
                    section,
                    key: "type".into(),
                    what: "`auto` or `manual`",
                });
            }
        };
        let number = |key, usual, range, what| number_of(ini, &section, key, usual, range, what);
        let versionbase = number("versionbase", 1, 1..=65_535, "a version from 1 to 65535")?;
        let fullcount = number("fullcount", 0, 0..=65_535, "a number of images")?;
        let deltas = number("deltas", 1, 0..=1000, "a number of images up to 1000")?;
        let patch_memory = number("patch_memory", 0, 0..=4096, "a number of MiB up to 4096")?;
        let deltabase = list(ini, &section, "deltabase")
            .iter()
            .map(|channel| named(&section, "deltabase", channel))
            .collect::<Result<_, _>>()?;
        let files = list(ini, &section, "files")
            .iter()
            .map(|entry| FileRule::of(ini, &section, entry))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            auto,
            versionbase: ImageVersion::new(versionbase),
            fullcount,
            deltabase,
            deltas,
            patch_memory: u64::from(patch_memory) << 20,
            files,
        })
    }

    /// The rules for one device: a rule for this device alone takes the place of a later one of
    /// the same name.
    pub fn rules<'a>(&'a self, device: &DeviceName) -> Vec<&'a FileRule> {
        let mut rules: Vec<&FileRule> = Vec::new();
        for rule in &self.files {
            let fits = rule.device.as_ref().is_none_or(|only| only == device);
            let taken = |earlier: &&FileRule| earlier.device.is_some() && earlier.name == rule.name;
            if fits && !rules.iter().any(taken) {
                rules.push(rule);
            }
        }
        rules
    }
}

impl FileRule {
    fn of(ini: &Ini, section: &str, entry: &str) -> Result<Self, ConfigError> {
        let (name, device) = match entry.split_once(',') {
            Some((name, device)) => (name, Some(named(section, "files", device)?)),
            None => (entry, None),
        };
        let key = format!("file_{entry}");
        let line = text(ini, section, &key).ok_or_else(|| ConfigError::NoFile {
            section: section.to_owned(),
            key: key.clone(),
        })?;
        let source = line.parse().map_err(|source| ConfigError::Source {
            section: section.to_owned(),
            key,
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            device,
            source,
        })
    }
}

fn named<T>(section: &str, key: &str, text: &str) -> Result<T, ConfigError>
where
    T: std::str::FromStr<Err = system_image_formats::name::NameError>,
{
    text.parse().map_err(|source| ConfigError::Name {
        section: section.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_devices_own_rule_takes_the_place_of_the_general_one() {
        let text = "[channel_a]\nfiles = rootfs, device,x, device, version\n\
                    file_rootfs = tar;a.tar\nfile_device,x = tar;x.tar\n\
                    file_device = tar;d.tar\nfile_version = version\n";
        let config = Config::parse(text.as_bytes()).unwrap();
        let channel = config.channel(&"a".parse().unwrap());
        let rules = |device: &str| {
            let rules = channel.rules(&device.parse().unwrap());
            let own = rules.iter().filter(|rule| rule.device.is_some()).count();
            (rules.len(), own)
        };
        assert_eq!(rules("x"), (3, 1));
        assert_eq!(rules("y"), (3, 0));
    }
}

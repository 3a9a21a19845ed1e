//! Where a file of an image comes from: `generator;argument;argument;…` (server spec, section 13).
//!
//! In: the text of a `file_…` option. Out: a typed [`Source`]. What the sources do is elsewhere.

use std::collections::BTreeMap;
use std::str::FromStr;

use camino::Utf8PathBuf;
use system_image_formats::checksum::Sha256;
use system_image_formats::name::{ChannelName, DeviceName, NameError};

/// Where a file of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The version file (section 13.8).
    Version,
    /// A packed keyring of the server, for the device's trust root (section 13.5).
    Keyring {
        /// Its name, e.g. `archive-master`.
        name: String,
    },
    /// Builds on the disk (section 13.2).
    Cdimage {
        /// Which of the family.
        kind: Cdimage,
        /// One subdirectory per build.
        directory: Utf8PathBuf,
        /// The series in the files' names.
        series: String,
        /// Which builds count.
        import: Import,
        /// The product in the files' names.
        product: String,
    },
    /// A finished `.tar.xz` at a URL (section 13.3).
    Http(Download),
    /// A root file system `.tar.gz` at a URL (section 13.4).
    HttpCdimage(Download),
    /// A file of another local channel (section 13.6).
    SystemImage {
        /// The channel.
        channel: ChannelName,
        /// The prefix of the file's name.
        prefix: String,
        /// Another device than the one that the image is for.
        device: Option<DeviceName>,
    },
    /// A file of another server (section 13.7).
    RemoteSystemImage {
        /// The server's base URL.
        url: String,
        /// The channel there.
        channel: ChannelName,
        /// The prefix of the file's name.
        prefix: String,
        /// Another device than the one that the image is for.
        device: Option<DeviceName>,
        /// The keyring that replaces the one in the recovery inside.
        keyring: Option<String>,
        /// The other server's archive-master keyring, which its signatures are checked with. An
        /// option of our own, `trust`.
        trust: Option<Utf8PathBuf>,
    },
    /// A root file system that is built from a recipe; our own.
    Bootstrap {
        /// The recipe's file.
        recipe: Utf8PathBuf,
    },
    /// A tar archive on the disk; our own.
    Tar {
        /// The archive, plain or compressed by gzip or xz.
        path: Utf8PathBuf,
        /// The prefix in the pool.
        name: Option<String>,
    },
    /// A directory on the disk that holds a root file system; our own.
    Directory {
        /// The directory.
        path: Utf8PathBuf,
        /// The prefix in the pool.
        name: Option<String>,
    },
    /// An OCI image layout on the disk, its layers flattened; our own.
    Oci {
        /// The layout's directory.
        path: Utf8PathBuf,
        /// The image's reference; the only one by default.
        reference: Option<String>,
        /// The prefix in the pool.
        name: Option<String>,
    },
}

/// The generators that read builds on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cdimage {
    /// A root file system.
    Ubuntu,
    /// What a vendor adds.
    Custom,
    /// A finished tarball for a device.
    DeviceRaw,
    /// Boot, recovery and system image of a device.
    Device,
}

/// Which builds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// All.
    Any,
    /// Those that are marked as good.
    Good,
}

/// A file at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Its address.
    pub url: String,
    /// The prefix in the pool and the key of its version.
    pub name: String,
    /// A URL that answers with one line that changes when the file does.
    pub monitor: Option<String>,
    /// A URL of a file with its SHA-256: bare, or as `sha256sum` writes it. An option of our own.
    pub checksum: Option<String>,
    /// The digest itself. An option of our own, `sha256`.
    pub sha256: Option<Sha256>,
    /// A URL of a detached signature. An option of our own.
    pub signature: Option<String>,
    /// The file of public keys that the signature is checked with. An option of our own.
    pub keyring: Option<Utf8PathBuf>,
    /// The product, which decides on names in the root file system; for `http-cdimage` only.
    pub product: String,
}

/// Why a text is no source.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SourceError {
    #[error("there is no generator `{0}`")]
    Unknown(String),
    #[error("`{generator}` needs {what} as its argument {position}")]
    Missing {
        generator: &'static str,
        position: usize,
        what: &'static str,
    },
    #[error("`{generator}` has no option `{option}`")]
    Option {
        generator: &'static str,
        option: String,
    },
    #[error("`{option}` is {what}, not `{value}`")]
    Value {
        option: &'static str,
        value: String,
        what: &'static str,
    },
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The arguments of one generator.
struct Arguments<'a> {
    generator: &'static str,
    position: usize,
    rest: std::vec::IntoIter<&'a str>,
}

impl<'a> Arguments<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a str, SourceError> {
        self.position += 1;
        let found = self
            .rest
            .next()
            .map(str::trim)
            .filter(|text| !text.is_empty());
        found.ok_or(SourceError::Missing {
            generator: self.generator,
            position: self.position,
            what,
        })
    }

    /// The options, of which only those of `known` may be there.
    fn options(mut self, known: &[&str]) -> Result<BTreeMap<&'a str, &'a str>, SourceError> {
        let options: BTreeMap<_, _> = self
            .rest
            .next()
            .unwrap_or_default()
            .split(',')
            // The original ignores what has no `=`.
            .filter_map(|item| item.trim().split_once('='))
            .collect();
        match options.keys().find(|option| !known.contains(option)) {
            None => Ok(options),
            Some(option) => Err(SourceError::Option {
                generator: self.generator,
                option: (*option).to_owned(),
            }),
        }
    }
}

/// The generators by their names in the configuration.
const GENERATORS: [&str; 14] = [
    "version",
    "keyring",
    "cdimage-ubuntu",
    "cdimage-custom",
    "cdimage-device-raw",
    "cdimage-device",
    "http",
    "http-cdimage",
    "system-image",
    "remote-system-image",
    "bootstrap",
    "tar",
    "directory",
    "oci",
];

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(line: &str) -> Result<Self, SourceError> {
        let mut parts = line.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let generator = GENERATORS
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| SourceError::Unknown(name.to_owned()))?;
        let mut arguments = Arguments {
            generator,
            position: 0,
            rest: parts.collect::<Vec<_>>().into_iter(),
        };
        Ok(match generator {
            "version" => Self::Version,
            "keyring" => Self::Keyring {
                name: arguments.next("a keyring's name")?.to_owned(),
            },
            "cdimage-ubuntu" => cdimage(Cdimage::Ubuntu, arguments)?,
            "cdimage-custom" => cdimage(Cdimage::Custom, arguments)?,
            "cdimage-device-raw" => cdimage(Cdimage::DeviceRaw, arguments)?,
            "cdimage-device" => cdimage(Cdimage::Device, arguments)?,
            "http" => Self::Http(Download::of(arguments, "http")?),
            "http-cdimage" => Self::HttpCdimage(Download::of(arguments, "http-cdimage")?),
            "system-image" => {
                let channel = arguments.next("a channel")?.parse()?;
                let prefix = arguments.next("a prefix")?.to_owned();
                let options = arguments.options(&["device"])?;
                Self::SystemImage {
                    channel,
                    prefix,
                    device: device(&options)?,
                }
            }
            "remote-system-image" => {
                let url = arguments.next("a URL")?.trim_end_matches('/').to_owned();
                let channel = arguments.next("a channel")?.parse()?;
                let prefix = arguments.next("a prefix")?.to_owned();
                let options = arguments.options(&["device", "keyring", "trust"])?;
                Self::RemoteSystemImage {
                    url,
                    channel,
                    prefix,
                    device: device(&options)?,
                    keyring: owned(&options, "keyring"),
                    trust: owned(&options, "trust").map(Into::into),
                }
            }
            "bootstrap" => Self::Bootstrap {
                recipe: arguments.next("a recipe's file")?.into(),
            },
            "tar" => {
                let path = arguments.next("a file")?.into();
                let options = arguments.options(&["name"])?;
                let name = prefix(&options)?;
                Self::Tar { path, name }
            }
            "directory" => {
                let path = arguments.next("a directory")?.into();
                let options = arguments.options(&["name"])?;
                let name = prefix(&options)?;
                Self::Directory { path, name }
            }
            _ => {
                let path = arguments.next("a directory with an OCI layout")?.into();
                let options = arguments.options(&["name", "ref"])?;
                Self::Oci {
                    path,
                    reference: owned(&options, "ref"),
                    name: prefix(&options)?,
                }
            }
        })
    }
}

fn cdimage(kind: Cdimage, mut arguments: Arguments<'_>) -> Result<Source, SourceError> {
    let directory = arguments.next("a directory")?.into();
    let mut series = arguments.next("a series")?;
    let mut options = BTreeMap::new();
    // The original's example has a comma where a `;` belongs (section 21, 24).
    if let Some((name, misplaced)) = series.split_once(',') {
        series = name;
        options.extend(misplaced.split(',').filter_map(|item| item.split_once('=')));
    }
    options.extend(arguments.options(&["import", "product"])?);
    let import = match options.get("import").copied() {
        None | Some("any") => Import::Any,
        Some("good") => Import::Good,
        Some(value) => {
            return Err(SourceError::Value {
                option: "import",
                value: value.to_owned(),
                what: "`any` or `good`",
            });
        }
    };
    let usual = match kind {
        Cdimage::DeviceRaw => "core",
        _ => "touch",
    };
    Ok(Source::Cdimage {
        kind,
        directory,
        series: series.to_owned(),
        import,
        product: owned(&options, "product").unwrap_or_else(|| usual.to_owned()),
    })
}

impl Download {
    fn of(mut arguments: Arguments<'_>, usual: &str) -> Result<Self, SourceError> {
        let url = arguments.next("a URL")?.to_owned();
        let mut known = vec![
            "name",
            "monitor",
            "checksum",
            "sha256",
            "signature",
            "keyring",
        ];
        if usual == "http-cdimage" {
            known.push("product");
        }
        let options = arguments.options(&known)?;
        let sha256 = match options.get("sha256") {
            None => None,
            Some(value) => Some(value.parse().map_err(|_| SourceError::Value {
                option: "sha256",
                value: (*value).to_owned(),
                what: "64 hexadecimal digits",
            })?),
        };
        if options.contains_key("signature") != options.contains_key("keyring") {
            return Err(SourceError::Value {
                option: "signature",
                value: "one without the other".to_owned(),
                what: "given together with `keyring`",
            });
        }
        Ok(Self {
            url,
            name: prefix(&options)?.unwrap_or_else(|| usual.to_owned()),
            monitor: owned(&options, "monitor"),
            checksum: owned(&options, "checksum"),
            sha256,
            signature: owned(&options, "signature"),
            keyring: owned(&options, "keyring").map(Into::into),
            product: owned(&options, "product").unwrap_or_else(|| "touch".to_owned()),
        })
    }
}

fn owned(options: &BTreeMap<&str, &str>, name: &str) -> Option<String> {
    options.get(name).map(|value| (*value).to_owned())
}

fn device(options: &BTreeMap<&str, &str>) -> Result<Option<DeviceName>, SourceError> {
    Ok(options.get("device").map(|name| name.parse()).transpose()?)
}

/// A prefix in the pool, which becomes part of a file's name.
fn prefix(options: &BTreeMap<&str, &str>) -> Result<Option<String>, SourceError> {
    let Some(name) = options.get("name") else {
        return Ok(None);
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(fits) {
        return Err(SourceError::Value {
            option: "name",
            value: (*name).to_owned(),
            what: "letters, digits, `.`, `_`, `-` and `+`",
        });
    }
    Ok(Some((*name).to_owned()))
}

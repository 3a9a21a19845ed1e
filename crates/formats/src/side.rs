//! Side files: what the server remembers of a pool or version file (server spec, section 6).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::channel_ini::ChannelIni;
use crate::detail::VersionDetail;
use crate::json::{self, JsonError};

/// The content of `<name>.json` beside `<name>.tar.xz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// The routine that made the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// What the file adds to an image's version detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_detail: Option<VersionDetail>,
    /// What else that generator records, and keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl SideFile {
    /// Of a file that `generator` made and that adds `detail`.
    pub fn new(generator: &str, detail: VersionDetail) -> Self {
        Self {
            generator: Some(generator.into()),
            version_detail: Some(detail),
            extra: Map::new(),
        }
    }

    /// Of a delta between two files; `None` where one has no side file.
    pub fn delta(source: Option<&Self>, target: Option<&Self>) -> Self {
        let whole = |side: Option<&Self>| {
            let side = side.cloned().unwrap_or_default();
            serde_json::to_value(side).expect("our types have text keys only")
        };
        let extra = [("source", whole(source)), ("target", whole(target))];
        Self {
            generator: Some("delta".into()),
            version_detail: None,
            extra: extra
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
        }
    }

    /// Of the version file that carries `ini`.
    pub fn version(ini: &ChannelIni) -> Self {
        let number = ini.build_number;
        let written = [
            ("channel", ini.channel.as_str()),
            ("device", ini.device.as_str()),
            ("version", &number.to_string()),
            ("version_detail", ini.version_detail.as_str()),
        ];
        // Only an alias has one, and the original writes no side file for those.
        let target = ini.channel_target.as_ref();
        let target = target.map(|target| ("channel_target", target.as_str()));
        let written: Map<_, _> = (written.into_iter().chain(target))
            .map(|(key, text)| (key.to_owned(), Value::from(text)))
            .collect();
        let mut side = Self::new("version", VersionDetail::from(format!("version={number}")));
        side.extra.insert("version".into(), number.get().into());
        side.extra.insert("channel.ini".into(), written.into());
        side
    }

    /// Reads a side file.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::from_slice(bytes)
    }

    /// The exact bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel_ini::Port;

    #[test]
    fn a_version_side_file_has_the_specified_bytes() {
        let ini = ChannelIni {
            base: "images.example.net".into(),
            http_port: Port::Number(80),
            https_port: Port::Disabled,
            channel: "daily".parse().unwrap(),
            device: "bravo".parse().unwrap(),
            build_number: "3".parse().unwrap(),
            channel_target: None,
            version_detail: VersionDetail::from("a=1,version=3".to_owned()),
        };
        let want = r#"{
    "channel.ini": {
        "channel": "daily",
        "device": "bravo",
        "version": "3",
        "version_detail": "a=1,version=3"
    },
    "generator": "version",
    "version": 3,
    "version_detail": "version=3"
}
"#;
        let side = SideFile::version(&ini);
        assert_eq!(String::from_utf8(side.to_bytes()).unwrap(), want);
        assert_eq!(SideFile::parse(want.as_bytes()).unwrap(), side);
    }

    #[test]
    fn a_delta_remembers_both_sides_or_their_absence() {
        let target = SideFile::new("http", VersionDetail::from("x=1".to_owned()));
        let text = String::from_utf8(SideFile::delta(None, Some(&target)).to_bytes()).unwrap();
        assert!(text.contains("\"source\": {},"), "{text}");
        assert!(
            text.contains("\"target\": {\n        \"generator\": \"http\","),
            "{text}"
        );
    }
}

//! From which version a device starts (client spec, section 9.6).

use system_image_formats::name::ChannelName;
use system_image_formats::version::ImageVersion;

/// The version to plan from, and the switch that changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The version to plan from.
    pub version: ImageVersion,
    /// The alias's old and new target, when the channel was pointed elsewhere.
    pub switch: Option<(ChannelName, ChannelName)>,
}

impl Start {
    /// Decides from the installed version, the configured `channel_target` and the channel's
    /// `alias`: a channel that was pointed elsewhere starts from nothing, which forces a full
    /// image, unless the user gave the version.
    pub fn decide(
        installed: ImageVersion,
        given_by_user: bool,
        channel_target: Option<&ChannelName>,
        alias: Option<&ChannelName>,
    ) -> Self {
        match (channel_target, alias) {
            (Some(old), Some(new)) if old != new && !given_by_user => Self {
                version: ImageVersion::NONE,
                switch: Some((old.clone(), new.clone())),
            },
            _ => Self {
                version: installed,
                switch: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_pointed_elsewhere_starts_from_nothing_unless_the_user_says_otherwise() {
        let (old, new): (ChannelName, ChannelName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let installed = ImageVersion::new(7);
        let start = |given, target, alias| Start::decide(installed, given, target, alias);
        assert_eq!(
            start(false, Some(&old), Some(&new)).version,
            ImageVersion::NONE
        );
        assert_eq!(
            start(false, Some(&old), Some(&new)).switch,
            Some((old.clone(), new.clone()))
        );
        assert_eq!(start(true, Some(&old), Some(&new)).version, installed);
        assert_eq!(start(false, Some(&old), Some(&old)).version, installed);
        assert_eq!(start(false, None, Some(&new)).version, installed);
        assert_eq!(start(false, Some(&old), None).version, installed);
    }
}

//! Whether an image may follow the installed one: never an older one of the same channel without
//! permission, never one for another device.
//!
//! Both sides are what `channel.ini` in the two systems says; the new one comes from a signed archive. What
//! is not known is no reason to refuse: images without it are legal.

use system_image_formats::channel_ini::ChannelIni;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

/// Why an image may not follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is for another device.
    #[error("the image is for the device `{got}`, this is `{want}`")]
    Device {
        /// The image's.
        got: DeviceName,
        /// This one.
        want: DeviceName,
    },
    /// It is older than what is installed.
    #[error("the image has version {offered}, version {installed} of `{channel}` is installed")]
    Downgrade {
        /// The channel of both.
        channel: ChannelName,
        /// The image's version.
        offered: ImageVersion,
        /// What is there.
        installed: ImageVersion,
    },
}

impl VersionError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Device { .. } => None,
            Self::Downgrade { .. } => Some(
                "`downgrade = true` in `upgrader.toml` allows it, and so does a command file that wipes user data",
            ),
        }
    }
}

/// Decides. `is_allowed` lets an older image through.
pub fn check(
    device: &DeviceName,
    installed: Option<&ChannelIni>,
    offered: Option<&ChannelIni>,
    is_allowed: bool,
) -> Result<(), VersionError> {
    let Some(offered) = offered else {
        return Ok(());
    };
    if offered.device != *device {
        return Err(VersionError::Device {
            got: offered.device.clone(),
            want: device.clone(),
        });
    }
    match installed {
        Some(installed)
            if installed.channel == offered.channel
                && offered.build_number < installed.build_number
                && !is_allowed =>
        {
            Err(VersionError::Downgrade {
                channel: offered.channel.clone(),
                offered: offered.build_number,
                installed: installed.build_number,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ini(channel: &str, device: &str, version: u32) -> ChannelIni {
        let text = format!(
            "[service]\nbase: x\nhttp_port: 80\nhttps_port: 443\nchannel: {channel}\n\
             device: {device}\nbuild_number: {version}\nversion_detail: version={version}\n"
        );
        ChannelIni::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_an_older_image_of_the_same_channel_or_one_for_another_device_is_refused() {
        let tango = "tango".parse().unwrap();
        let installed = ini("daily", "tango", 7);
        for (offered, allowed, fits) in [
            (ini("daily", "tango", 8), false, true),
            (ini("daily", "tango", 7), false, true),
            (ini("daily", "tango", 6), false, false),
            (ini("daily", "tango", 6), true, true),
            (ini("stable", "tango", 1), false, true),
            (ini("daily", "disco", 8), true, false),
        ] {
            let got = check(&tango, Some(&installed), Some(&offered), allowed);
            assert_eq!(got.is_ok(), fits, "{offered:?}: {got:?}");
        }
        assert_eq!(check(&tango, None, Some(&installed), false), Ok(()));
        assert_eq!(check(&tango, Some(&installed), None, false), Ok(()));
    }
}

//! The command line's grammar (client spec, section 2.1).

use camino::Utf8PathBuf;
use clap::{ArgAction, Parser};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

/// Check for system updates, download them and hand them over to the upgrader
///
/// Without options: a full update.
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the original's"
)]
#[command(
    name = "system-image-cli",
    version,
    infer_long_args = true,
    args_override_self = true
)]
pub(super) struct Options {
    /// Configuration directory
    #[arg(
        short = 'C',
        long,
        value_name = "DIRECTORY",
        default_value = "/etc/system-image/config.d"
    )]
    pub(super) config: Utf8PathBuf,
    /// Current build number, instead of the configured one
    #[arg(short, long, value_name = "BUILD", allow_hyphen_values = true)]
    pub(super) build: Option<String>,
    /// Channel, instead of the configured one
    #[arg(short, long, value_name = "CHANNEL")]
    pub(super) channel: Option<ChannelName>,
    /// Device name, instead of the configured one
    #[arg(short, long, value_name = "DEVICE")]
    pub(super) device: Option<DeviceName>,
    /// Candidates to consider: `full` or `delta`
    #[arg(short, long, value_name = "FILTER")]
    pub(super) filter: Option<String>,
    /// Cut the chosen path after this version
    #[arg(short, long, value_name = "MAXIMAGE")]
    pub(super) maximage: Option<ImageVersion>,
    /// Download and prepare, but do not apply
    #[arg(short = 'g', long)]
    pub(super) no_apply: bool,
    /// Print what the device is, and exit
    #[arg(short, long)]
    pub(super) info: bool,
    /// Print the path, download no data files
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    /// Say more; can be given several times
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Progress meter: `dots`, `logfile` or `json`; can be given several times
    #[arg(long, value_name = "PROGRESS")]
    pub(super) progress: Vec<String>,
    /// The device's place in rollouts, 0 to 100
    #[arg(short, long, value_name = "PERCENTAGE", allow_hyphen_values = true)]
    pub(super) percentage: Option<i64>,
    /// Print the server's channels, and exit
    #[arg(long)]
    pub(super) list_channels: bool,
    /// Switch to a channel: like `-b 0 -c CHANNEL`
    #[arg(long, value_name = "CHANNEL")]
    pub(super) switch: Option<ChannelName>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn long_options_may_be_abbreviated() {
        let options = Options::try_parse_from(["x", "--dry", "--chan", "a", "-vv", "-b", "-1"]);
        let options = options.unwrap();
        assert!(options.dry_run && options.verbose == 2);
        assert_eq!(options.build.as_deref(), Some("-1"));
    }

    #[test]
    fn of_an_option_that_is_given_twice_the_last_counts() {
        let options = Options::try_parse_from(["x", "-C", "a", "-C", "b", "-n", "-n"]).unwrap();
        assert!(options.dry_run);
        assert_eq!(options.config, "b");
    }
}

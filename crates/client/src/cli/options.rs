//! The command line's grammar (client spec, section 2.1).

use camino::Utf8PathBuf;
use clap::{ArgAction, Parser};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

/// Over the options that the original does not have.
const ADDED: &str = "Beyond the original";

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
    #[arg(short, long, value_name = "PERCENTAGE", allow_hyphen_values = true, value_parser = percents)]
    pub(super) percentage: Option<i64>,
    /// Print the server's channels, and exit
    #[arg(long)]
    pub(super) list_channels: bool,
    /// Have the recovery wipe the user's data
    #[arg(long)]
    pub(super) factory_reset: bool,
    /// Have the recovery wipe the user's data, as before a sale
    #[arg(long)]
    pub(super) production_reset: bool,
    /// Print the settings, and exit
    #[arg(long)]
    pub(super) show_settings: bool,
    /// Store a setting, and exit; can be given several times
    #[arg(long, value_name = "KEY=VAL")]
    pub(super) set: Vec<String>,
    /// Print a setting, and exit; can be given several times
    #[arg(long, value_name = "KEY")]
    pub(super) get: Vec<String>,
    /// Delete a setting, and exit; can be given several times
    #[arg(long, value_name = "KEY")]
    pub(super) del: Vec<String>,
    /// Allow mobile data for this run, whatever the setting says
    #[arg(long)]
    pub(super) override_gsm: bool,
    /// Check no signature at all
    #[arg(long, hide = true)]
    pub(super) skip_gpg_verification: bool,
    /// Print what an update would take: bytes, space, reboots, files
    #[arg(long, help_heading = ADDED)]
    pub(super) plan: bool,
    /// Print each candidate and image, and the rule that decided
    #[arg(long, help_heading = ADDED)]
    pub(super) explain: bool,
    /// Print what is installed, chosen, prepared, and how the last update ended
    #[arg(long, help_heading = ADDED)]
    pub(super) status: bool,
    /// Print what happened to the device's image so far
    #[arg(long, help_heading = ADDED)]
    pub(super) history: bool,
    /// Look for whatever would stop an update; exit status 3 if there is something
    #[arg(long, help_heading = ADDED)]
    pub(super) preflight: bool,
    /// Apply the prepared update; needs no network
    #[arg(long, help_heading = ADDED)]
    pub(super) apply: bool,
    /// Do what the settings allow without being asked, as a timer does
    #[arg(long, help_heading = ADDED)]
    pub(super) automatic: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = ADDED)]
    pub(super) json: bool,
    /// Switch to a channel: like `-b 0 -c CHANNEL`
    #[arg(long, value_name = "CHANNEL")]
    pub(super) switch: Option<ChannelName>,
}

/// What is beyond 0 to 100 counts as the nearer one of them, as in the original.
fn percents(text: &str) -> Result<i64, &'static str> {
    text.trim()
        .parse()
        .map_err(|_| "it is a whole number from 0 to 100")
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

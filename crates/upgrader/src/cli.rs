//! The command line.

use camino::Utf8PathBuf;
use clap::Parser;

use crate::config::DEFAULT_PATH;

/// Apply a command file to the device's system
///
/// Exit status: 0 when all of it is installed, 1 when it was refused and nothing was changed, 3
/// when it was interrupted and has to be run again.
#[derive(Debug, Parser)]
#[command(name = "system-image-upgrader", version)]
pub struct Cli {
    /// Settings
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: Utf8PathBuf,
    /// The command file that the client left
    pub command_file: Utf8PathBuf,
}

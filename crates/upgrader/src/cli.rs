//! The command line.

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

use crate::config::DEFAULT_PATH;
use crate::progress::Form;

/// Apply a command file to the device
///
/// Exit status: 0 when all of it is installed, or is tried at the next start; 1 when it was refused and
/// nothing was changed; 3 when it was interrupted and has to be run again; 4 when it was run again so often
/// without getting further that it is given up.
#[derive(Debug, Parser)]
#[command(
    name = "system-image-upgrader",
    version,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// The device description
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, global = true)]
    pub config: Utf8PathBuf,
    /// How progress is written to standard output
    #[arg(long, value_enum, default_value_t)]
    pub progress: Form,
    /// The command file that the client left
    #[arg(required = true)]
    pub command_file: Option<Utf8PathBuf>,
    /// What else this program does
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What else this program does.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Action {
    /// Look at the device and say what is wrong with its description
    ///
    /// Nothing is changed. Exit status: 0 when all is well, 1 when something is wrong.
    Check {
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Say which slot runs, and what boots next
    Status {
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Confirm the running slot if its health checks pass
    ///
    /// To be run late at each start. Without a trial it does nothing. Exit status: 0 when the running slot
    /// stays, 1 when a health check failed: restart then, so that the next try begins, or the old slot
    /// boots; 2 when that could not be found out, which is no reason to restart.
    Confirm,
    /// Go back to the system in the other slot at the next start
    RollBack,
}

//! `system-image-dbus`: the client on the system bus (client spec, section 15).
//!
//! | module | its part |
//! | --- | --- |
//! | [`core`](self::core) | one device's client behind the bus: what runs, what was found, what is told to whom |
//! | [`service`] | the original's interface: bus types in, one call on the core, bus types out |
//! | [`modern`] | ours beside it, on the same object |
//! | [`legacy`] | errors in the words that the original's callers know |
//! | [`idle`] | when to leave the bus |
//! | [`firmware`] | the tool that updates firmware |

mod core;
mod firmware;
mod idle;
mod legacy;
mod modern;
mod service;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use camino::Utf8PathBuf;
use clap::{ArgAction, CommandFactory, Parser};
use system_image_bus::service as names;
use zbus::fdo::RequestNameFlags;

use self::core::Core;
use crate::device::{Device, NoConfigDirectory};
use crate::log::Log;

/// Check for system updates, download and apply them, for callers on the system bus
#[derive(Debug, Parser)]
#[command(name = "system-image-dbus", version, infer_long_args = true)]
struct Options {
    /// Configuration directory
    #[arg(
        short = 'C',
        long,
        value_name = "DIRECTORY",
        default_value = "/etc/system-image/config.d"
    )]
    config: Utf8PathBuf,
    /// Say more; can be given several times
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// The grammar of the command line.
pub fn command() -> clap::Command {
    Options::command()
}

/// Exit status of a wrong command line, and of a name that is taken.
const USAGE: u8 = 2;

/// Runs the program.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let device = match Device::load(&options.config) {
        Ok(device) => device,
        Err(error) => {
            if let Some(missing) = error.downcast_ref::<NoConfigDirectory>() {
                let usage = Options::command().render_usage();
                eprintln!("{usage}\nsystem-image-dbus: error: {missing}");
                return ExitCode::from(USAGE);
            }
            return failure(&error);
        }
    };
    let system = &device.config.system;
    let log = Log::open(&system.logfile, system.loglevel.main, options.verbose);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error.into()),
    };
    let ended = runtime.block_on(serve(options.config, device, Arc::new(log)));
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| failure(&error))
}

fn failure(error: &anyhow::Error) -> ExitCode {
    let hint = crate::cli::hint(error);
    eprint!("{}", system_image_report::describe(error, hint.as_deref()));
    ExitCode::FAILURE
}

/// Serves until nobody has asked for anything for a while, or somebody ends it.
async fn serve(directory: Utf8PathBuf, device: Device, log: Arc<Log>) -> anyhow::Result<ExitCode> {
    let connection = zbus::connection::Builder::system()
        .build()
        .await
        .context("cannot connect to the system bus")?;
    let (core, running) = Core::new(connection.clone(), directory, device, Arc::clone(&log));
    let server = connection.object_server();
    let serving = "cannot serve on the system bus";
    server
        .at(names::PATH, service::Service::new(Arc::clone(&core)))
        .await
        .context(serving)?;
    server
        .at(names::PATH, modern::Modern::new(Arc::clone(&core)))
        .await
        .context(serving)?;
    // The objects stand before anybody can call them.
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match connection.request_name_with_flags(names::NAME, flags).await {
        Ok(_) => {}
        Err(zbus::Error::NameTaken) => {
            let text = "Cannot get exclusive ownership of bus name.";
            log.error(text);
            eprintln!("{text}");
            return Ok(ExitCode::from(USAGE));
        }
        Err(error) => return Err(error).context("cannot own the name on the system bus"),
    }
    core.begin();
    running.until_over(&core).await;
    Ok(ExitCode::SUCCESS)
}

//! The daemon: on the bus, until there is nothing to do.

mod calls;
mod change;
mod connections;
pub mod core;
mod create;
mod engine;
mod holds;
mod life;
mod pump;
mod restore;
mod run;
mod show;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Context as _;
use system_image_bus::{Kernel, Network};
use system_image_fetch::CertificateDer;
use tokio::sync::mpsc;
use zbus::MessageStream;

use self::connections::Connections;
use self::core::Core;
use self::engine::Engine;
use self::life::Life;
use crate::bus::outbox::Outbox;
use crate::host;
use crate::log;
use crate::options::Options;
use crate::records::Records;

/// Runs the daemon.
pub fn main(options: &Options) -> ExitCode {
    if let Some(directory) = &options.log_dir
        && let Err(error) = log::into(directory)
    {
        log::say(format_args!(
            "no log can be written in `{directory}`: {error}"
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.context("cannot begin to run").and_then(|runtime| {
        let ended = runtime.block_on(serve(options));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
            let taken = causes.any(|cause| matches!(cause, zbus::Error::NameTaken));
            let hint =
                "another download service runs: stop it, or start this one on a bus of its own";
            let told = system_image_report::describe(&error, taken.then_some(hint));
            log::say(told.trim_end());
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let host = host::look(options);
    let apparmor = host.apparmor;
    let records = records(options, &host)?;
    let engine = Engine::new(certificates(options)?).context("cannot set up downloads")?;
    let connections = Connections::open().await?;

    let (outgoing, outbox) = mpsc::unbounded_channel();
    let sending = tokio::spawn(pump::send(connections.serving.clone(), outbox));
    let (news, heard) = mpsc::unbounded_channel();
    let kernel = Kernel::default();
    let network = Network::now(connections.system.as_ref(), &kernel).await;
    let core = Core::new(host, records, Outbox::new(outgoing), engine, news, network);

    let (calls, called) = mpsc::channel(pump::CALLS);
    let messages = MessageStream::from(&connections.serving);
    let asking = connections.asking.clone();
    tokio::spawn(pump::receive(messages, asking, apparmor, calls));
    connections.own_names().await?;

    let mut life = Life::new(core, called, heard, connections.system.clone(), kernel).await?;
    life.until_over(!options.disable_timeout).await;
    connections.release_names().await;
    life.part().await;
    // Ends when all is sent.
    drop(life);
    drop(sending.await);
    Ok(())
}

fn records(options: &Options, host: &core::Host) -> anyhow::Result<Records> {
    let place = host::database(options, host);
    Records::open(&place).or_else(|error| {
        log::say(format_args!(
            "`{place}` cannot be used, so downloads end with this process: {error}"
        ));
        Records::fleeting().context("cannot keep records")
    })
}

/// The certificates of `-self-signed-certs`.
fn certificates(options: &Options) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let Some(pattern) = &options.self_signed_certs else {
        return Ok(Vec::new());
    };
    let paths = glob::glob(pattern).with_context(|| format!("`{pattern}` is no pattern"))?;
    let mut all = Vec::new();
    for path in paths.flatten() {
        let read = system_image_fetch::certificates(&path);
        all.extend(read.with_context(|| format!("cannot read `{}`", path.display()))?);
    }
    Ok(all)
}

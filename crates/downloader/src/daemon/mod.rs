//! The daemon: on the bus, until there is nothing to do.

mod calls;
mod change;
pub mod core;
mod create;
mod engine;
mod holds;
mod pump;
mod restore;
mod run;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use system_image_bus::download::Family;
use system_image_bus::{Changes, Kernel, Network};
use system_image_fetch::CertificateDer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use zbus::Connection;
use zbus::fdo::RequestNameFlags;

use self::core::Core;
use self::engine::Engine;
use self::run::TICK;
use crate::bus::outbox::Outbox;
use crate::host;
use crate::log;
use crate::options::Options;
use crate::records::Records;

/// Without any download it leaves after so long.
const EMPTY: Duration = Duration::from_secs(30);

/// When all rest, it leaves after so long without a call: what rests comes back with the next one.
const RESTING: Duration = Duration::from_secs(600);

/// How long the last bytes may take to be written.
const PARTING: Duration = Duration::from_secs(5);

/// Where nobody tells of a changed network, it is looked at so often.
const LOOK: Duration = Duration::from_secs(30);

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
            log::say(system_image_report::describe(&error, None).trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The connection that serves, one to ask the same bus about callers, and one to the system's bus.
///
/// Who serves does not ask: an answer behind a queue of calls would wait for itself.
struct Connections {
    serving: Connection,
    asking: Connection,
    system: Option<Connection>,
}

impl Connections {
    /// The bus that started this process, or that of the session.
    async fn open() -> anyhow::Result<Self> {
        let is_system = std::env::var("DBUS_STARTER_BUS_TYPE").is_ok_and(|kind| kind == "system");
        let serving = starter(is_system).await?;
        let asking = starter(is_system).await?;
        let system = if is_system {
            Some(asking.clone())
        } else {
            match zbus::connection::Builder::system().build().await {
                Ok(system) => Some(system),
                Err(error) => {
                    log::say(format_args!("nobody tells about the network: {error}"));
                    None
                }
            }
        };
        Ok(Self {
            serving,
            asking,
            system,
        })
    }
}

async fn starter(is_system: bool) -> anyhow::Result<Connection> {
    let address = std::env::var("DBUS_STARTER_ADDRESS").ok();
    let builder = match &address {
        Some(address) => zbus::connection::Builder::address(address.as_str()),
        None if is_system => zbus::connection::Builder::system(),
        None => zbus::connection::Builder::session(),
    };
    let connected = builder.build().await;
    connected.context("cannot connect to the message bus")
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let host = host::look(options);
    let user = host.user;
    let apparmor = host.apparmor;
    let records = records(options, &host)?;
    let engine = Engine::new(certificates(options)?).context("cannot set up downloads")?;
    let connections = Connections::open().await?;

    let (outgoing, sender) = mpsc::unbounded_channel();
    let sent = tokio::spawn(pump::send(connections.serving.clone(), sender));
    let (news, mut heard) = mpsc::unbounded_channel();
    let kernel = Kernel::default();
    let network = Network::now(connections.system.as_ref(), &kernel).await;
    let outbox = Outbox::new(outgoing);
    let mut core = Core::new(host, records, outbox, engine, news, network);

    let (calls, mut called) = mpsc::channel(pump::CALLS);
    let messages = zbus::MessageStream::from(&connections.serving);
    tokio::spawn(pump::receive(
        messages,
        connections.asking.clone(),
        apparmor,
        calls,
    ));
    // The manager's object stands before anybody can call it.
    own_names(&connections.serving).await?;
    log::say(format_args!(
        "serving user {user} as {}",
        connections
            .serving
            .unique_name()
            .map_or("", |name| name.as_str())
    ));

    let mut changes = match &connections.system {
        Some(system) => Changes::watch(system).await.ok(),
        None => None,
    };
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    let mut last_call = Instant::now();
    let mut since_empty = Instant::now();
    let mut tick = Instant::now();
    let mut look = Instant::now() + LOOK;
    loop {
        if !core.is_empty() {
            since_empty = Instant::now();
        }
        let leaves = if options.disable_timeout || core.is_busy() {
            None
        } else if core.is_empty() {
            Some(since_empty + EMPTY)
        } else {
            Some(last_call + RESTING)
        };
        let never = Instant::now() + Duration::from_secs(86_400);
        let wakes = if core.is_moving() { tick } else { never };
        tokio::select! {
            biased;
            call = called.recv() => match call {
                Some((message, caller)) => {
                    last_call = Instant::now();
                    core.answer(&message, &caller);
                }
                // The bus has ended.
                None => break,
            },
            Some((which, what)) = heard.recv() => core.hear(which, what),
            () = sleep_until(wakes) => {
                core.tick();
                tick = Instant::now() + TICK;
            }
            () = changed(&mut changes) => {
                let network = Network::now(connections.system.as_ref(), &kernel).await;
                core.set_network(network);
            }
            () = sleep_until(look), if core.is_busy() => {
                let network = Network::now(connections.system.as_ref(), &kernel).await;
                core.set_network(network);
                look = Instant::now() + LOOK;
            }
            () = sleep_until(leaves.unwrap_or(never)), if leaves.is_some() => break,
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
        }
        if core.is_over() {
            break;
        }
    }
    // What is called from now on starts another process; what was called is answered.
    for family in Family::ALL {
        let _ = connections.serving.release_name(family.service()).await;
    }
    while let Ok((message, caller)) = called.try_recv() {
        core.answer(&message, &caller);
    }
    let parting = Instant::now() + PARTING;
    while core.wind_up() {
        let Ok(Some((which, what))) = timeout_at(parting, heard.recv()).await else {
            break;
        };
        core.hear(which, what);
    }
    drop(core);
    // Ends when all is sent.
    let _ = sent.await;
    Ok(())
}

/// Waits for another network; for ever where nobody tells.
async fn changed(changes: &mut Option<Changes>) {
    if let Some(watched) = changes {
        if watched.changed().await.is_ok() {
            return;
        }
        *changes = None;
    }
    std::future::pending().await
}

async fn own_names(connection: &Connection) -> anyhow::Result<()> {
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    for family in Family::ALL {
        let name = family.service();
        let owned = connection.request_name_with_flags(name, flags).await;
        owned.with_context(|| format!("cannot own `{name}` on the message bus"))?;
    }
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

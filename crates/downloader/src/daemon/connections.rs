//! Connections to buses, and our names there.

use anyhow::Context as _;
use system_image_bus::download::Family;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::RequestNameFlags;

use crate::log;

/// The connection that serves, one to ask the same bus about callers, and one to the system's bus.
///
/// Who serves does not ask: an answer behind a queue of calls would wait for itself.
pub(super) struct Connections {
    pub(super) serving: Connection,
    pub(super) asking: Connection,
    pub(super) system: Option<Connection>,
}

impl Connections {
    /// The bus that started this process, or that of the session.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let is_system = std::env::var("DBUS_STARTER_BUS_TYPE").is_ok_and(|kind| kind == "system");
        let serving = starter(is_system).await?;
        let asking = starter(is_system).await?;
        let system = if is_system {
            Some(asking.clone())
        } else {
            match Builder::system().build().await {
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

    /// Takes our names; the objects must stand by then.
    pub(super) async fn own_names(&self) -> anyhow::Result<()> {
        let flags = RequestNameFlags::DO_NOT_QUEUE;
        for family in Family::ALL {
            let name = family.service();
            let owned = self.serving.request_name_with_flags(name, flags).await;
            owned.with_context(|| format!("cannot own `{name}` on the message bus"))?;
        }
        Ok(())
    }

    /// Gives them up: what is called from then on starts another process.
    pub(super) async fn release_names(&self) {
        for family in Family::ALL {
            // Whoever has lost the bus has lost them.
            drop(self.serving.release_name(family.service()).await);
        }
    }
}

async fn starter(is_system: bool) -> anyhow::Result<Connection> {
    let address = std::env::var("DBUS_STARTER_ADDRESS").ok();
    let builder = match &address {
        Some(address) => Builder::address(address.as_str()),
        None if is_system => Builder::system(),
        None => Builder::session(),
    };
    let connected = builder.build().await;
    connected.context("cannot connect to the message bus")
}

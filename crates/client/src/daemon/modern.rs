//! Our interface beside the original's: 64-bit sizes, speed and time left, properties that tell when
//! they change, errors with names, and what the command line prints as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use system_image_bus::service as names;
use system_image_fetch::FetchError;
use system_image_trust::{ChainError, VerifyError};
use zbus::Variant;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::core::{Action, Core, Progress, Work};
use super::service::refused;
use crate::check::{Outcome, Wish};
use crate::cli::report;
use crate::session::Missing;
use crate::state::{Busy, Found};
use crate::update::NoRoom;

/// Why a call failed.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "com.canonical.SystemImage1.Error")]
pub(super) enum Refused {
    #[zbus(error)]
    Bus(zbus::Error),
    /// The caller may not.
    AccessDenied(String),
    /// The server has nothing for this device on this channel.
    NotOffered(String),
    /// The server cannot be reached, or does not have what it must have.
    Network(String),
    /// A signature is not good.
    Signature(String),
    /// There is not enough room.
    NoRoom(String),
    /// Another client is at work.
    Busy(String),
    /// Something else.
    Failed(String),
}

impl From<zbus::fdo::Error> for Refused {
    fn from(error: zbus::fdo::Error) -> Self {
        Self::AccessDenied(error.to_string())
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        let text = match crate::cli::hint(&error) {
            Some(hint) => format!("{error:#}; {hint}"),
            None => format!("{error:#}"),
        };
        let kind = error.chain().find_map(|cause| {
            Some(if cause.is::<FetchError>() || cause.is::<Missing>() {
                Self::Network
            } else if cause.is::<VerifyError>() || cause.is::<ChainError>() {
                Self::Signature
            } else if cause.is::<NoRoom>() {
                Self::NoRoom
            } else if cause.is::<Busy>() {
                Self::Busy
            } else {
                return None;
            })
        });
        kind.unwrap_or(Self::Failed)(text)
    }
}

/// Properties as they were told last; none before the first time.
#[derive(Debug, Default)]
pub(super) struct Told(tokio::sync::Mutex<Vec<(&'static str, Variant<'static>)>>);

type Result<T> = std::result::Result<T, Refused>;

/// The object on the bus.
pub(super) struct Modern {
    core: Arc<Core>,
}

impl Modern {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn allow(&self, header: &Header<'_>, action: Action) -> Result<()> {
        self.core.touch();
        let allowed = self.core.allow(header, action).await;
        Ok(allowed.map_err(|denied| refused(&denied))?)
    }

    /// Asks the server, keeps nothing of it.
    async fn ask(&self, explain: bool) -> Result<crate::check::Checked> {
        self.core.touch();
        let client = self.core.client();
        let wish = Wish {
            build_given: client.build_given,
            explain,
            ..Wish::default()
        };
        let (send, receive) = tokio::sync::oneshot::channel();
        super::core::spawn(move |runtime| {
            let _ = send.send(runtime.block_on(client.check(&wish)));
        });
        let checked = receive
            .await
            .map_err(|_| Refused::Failed("the check has ended without an answer".into()))??;
        match checked.outcome {
            Outcome::NotOffered(error) => Err(Refused::NotOffered(error.to_string())),
            _ => Ok(checked),
        }
    }

    /// Tells which properties have changed since it was told last.
    pub(super) async fn changed(core: &Arc<Core>) {
        let modern = Self::new(Arc::clone(core));
        // Whoever tells keeps the others waiting, so that the last one told is the last one there was.
        let mut told = core.told.0.lock().await;
        let progress = core.progress();
        let now = [
            ("State", modern.state().into()),
            ("CurrentVersion", modern.current_version().into()),
            ("TargetVersion", modern.target_version().into()),
            ("Received", progress.received.into()),
            ("Total", progress.total.into()),
            ("LastError", core.last_error().into()),
        ];
        let changed = now.iter().filter(|property| !told.contains(property));
        let changed: HashMap<&str, &Variant<'_>> =
            changed.map(|(name, value)| (*name, value)).collect();
        if changed.is_empty() {
            return;
        }
        let body = (names::MODERN_INTERFACE, changed, Vec::<&str>::new());
        let properties = "org.freedesktop.DBus.Properties";
        core.send(properties, "PropertiesChanged", &body).await;
        *told = now.into();
    }

    /// Tells how far a download is.
    pub(super) async fn advanced(core: &Core, now: Progress) {
        let body = (now.received, now.total, now.speed, now.eta());
        core.send(names::MODERN_INTERFACE, "Progress", &body).await;
    }
}

#[zbus::interface(name = "com.canonical.SystemImage1")]
impl Modern {
    /// What `system-image-cli --status --json` prints. Verifies what is prepared.
    fn status(&self) -> String {
        self.core.touch();
        report::json("status", &report::Status::of(&self.core.client()))
    }

    /// What `system-image-cli --history --json` prints.
    fn history(&self) -> String {
        self.core.touch();
        report::json("history", &self.core.client().state.history())
    }

    /// What `system-image-cli --plan --json` prints. Asks the server.
    async fn plan(&self) -> Result<String> {
        let checked = self.ask(false).await?;
        let plan = report::Plan::of(&self.core.client(), &checked)?;
        Ok(report::json("plan", &plan))
    }

    /// What `system-image-cli --explain --json` prints. Asks the server.
    async fn explain(&self) -> Result<String> {
        let checked = self.ask(true).await?;
        let found = report::check(&checked).map_err(anyhow::Error::from)?;
        Ok(report::json("check", &found))
    }

    /// Starts a check; `State` tells when it has ended.
    async fn check(&self) {
        self.core.touch();
        self.core.check().await;
    }

    /// Starts the download of what a check found, or lets it go on.
    async fn download(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Download).await?;
        self.core.download().await;
        Ok(())
    }

    /// Lets a download stand still; false if there is none.
    async fn pause(&self, #[zbus(header)] header: Header<'_>) -> Result<bool> {
        self.allow(&header, Action::Download).await?;
        Ok(self.core.pause().is_empty())
    }

    /// Gives up what is at work; false if nothing is.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<bool> {
        self.allow(&header, Action::Download).await?;
        let at_work = self.core.work().is_some();
        self.core.cancel();
        Ok(at_work)
    }

    /// Verifies what is prepared and applies it; the signal `Applied` tells whether it did.
    async fn apply(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Apply).await?;
        self.core.apply().await;
        Ok(())
    }

    /// `idle`, `checking`, `downloading`, `paused` or `applying`.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        match self.core.work() {
            None => "idle",
            Some((Work::Check, _)) => "checking",
            Some((Work::Download, false)) => "downloading",
            Some((Work::Download, true)) => "paused",
            Some((Work::Apply, _)) => "applying",
        }
    }

    /// The version that updates start from.
    #[zbus(property)]
    fn current_version(&self) -> u32 {
        let client = self.core.client();
        client.device.config.service.build_number.get()
    }

    /// The version that there is to be had; that of now when there is no update.
    #[zbus(property)]
    fn target_version(&self) -> u32 {
        match self.core.target() {
            Some(Found::Update { version, .. }) => version.get(),
            _ => self.current_version(),
        }
    }

    /// Bytes that the download has received.
    #[zbus(property)]
    fn received(&self) -> u64 {
        self.core.progress().received
    }

    /// Bytes that it has in all.
    #[zbus(property)]
    fn total(&self) -> u64 {
        self.core.progress().total
    }

    /// Why the last work failed; empty if it did not.
    #[zbus(property)]
    fn last_error(&self) -> String {
        self.core.last_error()
    }

    /// Bytes received and in all, bytes per second, seconds left.
    #[zbus(signal)]
    async fn progress(
        emitter: &SignalEmitter<'_>,
        received: u64,
        total: u64,
        speed: u64,
        eta: f64,
    ) -> zbus::Result<()>;
}

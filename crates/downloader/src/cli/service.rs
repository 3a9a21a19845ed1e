//! The service, from the command line's side.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use system_image_bus::download::Family;
use system_image_bus::presence;
use tokio::time::timeout;
use zbus::wire::Type;
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, OwnedVariant, message};

use crate::bus::interfaces::Interface;

/// How long the service may take, which includes its start.
const PATIENCE: Duration = Duration::from_secs(25);

/// A connection to it.
#[derive(Debug)]
pub(super) struct Service {
    connection: Connection,
    family: Family,
}

/// A download as the service shows it.
#[derive(Debug)]
pub(super) struct Shown {
    values: HashMap<String, OwnedVariant>,
}

impl Shown {
    fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.values.get(name)?.try_clone().ok()?.try_into().ok()
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).unwrap_or_default()
    }

    pub(super) fn seconds(&self, name: &str) -> f64 {
        self.get(name).unwrap_or(-1.0)
    }

    pub(super) fn truth(&self, name: &str) -> bool {
        self.get(name).unwrap_or_default()
    }

    pub(super) fn words(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default()
    }

    /// The last element of its path on the bus.
    pub(super) fn id(&self) -> String {
        let path = self.text("Object");
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// What a person calls it: its title, or its file's name.
    pub(super) fn name(&self) -> String {
        let (title, path) = (self.text("Title"), self.text("Path"));
        if !title.is_empty() {
            return title;
        }
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// Why the service is not ours to ask.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("there is no download service on the {0} bus")]
    Absent(&'static str),
    #[error("the download service on the bus is another program")]
    Another,
}

/// What a person can do.
pub(super) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(unfit) = error.downcast_ref::<Unfit>() {
        return Some(match unfit {
            Unfit::Absent(_) => {
                "install its activation files, or choose the other bus: --system or --session"
            }
            Unfit::Another => "list, watch and add need system-image-downloader as the service",
        });
    }
    let name = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<zbus::Error>()? {
            zbus::Error::MethodError(name, ..) => Some(name.as_str().to_owned()),
            _ => None,
        })?;
    match name.as_str() {
        "org.freedesktop.DBus.Error.AccessDenied" => {
            Some("the system's service is root's alone: run this as root")
        }
        "org.freedesktop.DBus.Error.UnknownObject" => {
            Some("it is over; `list` shows what there is")
        }
        _ => None,
    }
}

/// Why a download has failed, once it has.
#[derive(Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Option<String>>>);

impl Heard {
    /// In words.
    pub(super) fn cause(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What a typed signal says in words.
fn cause_of(signal: &Message) -> Option<String> {
    let header = signal.header();
    let body = signal.body();
    match header.member()?.as_str() {
        "httpError" => {
            let ((code, reason),): ((i32, String),) = body.deserialize().ok()?;
            Some(format!("the server says {code} {reason}"))
        }
        "networkError" | "authError" => {
            let ((_, text),): ((i32, String),) = body.deserialize().ok()?;
            Some(text)
        }
        "hashError" => {
            let ((algorithm, _, got),): ((String, String, String),) = body.deserialize().ok()?;
            Some(format!("its {algorithm} is {got}"))
        }
        "processError" => {
            type Process = ((i32, String, i32, String, String),);
            let ((_, name, _, _, stderr),): Process = body.deserialize().ok()?;
            Some(format!("{name}: {stderr}"))
        }
        _ => None,
    }
}

impl Service {
    pub(super) async fn connect(system: bool) -> anyhow::Result<Self> {
        let (builder, bus) = if system {
            (zbus::connection::Builder::system(), "system")
        } else {
            (zbus::connection::Builder::session(), "session")
        };
        let connection = builder
            .build()
            .await
            .with_context(|| format!("cannot connect to the {bus} bus"))?;
        for family in Family::ALL {
            if presence::reachable(&connection, family.service()).await? {
                return Ok(Self { connection, family });
            }
        }
        bail!(Unfit::Absent(bus))
    }

    /// All downloads, in the order of creation.
    pub(super) async fn list(&self) -> anyhow::Result<Vec<Shown>> {
        let listed: anyhow::Result<Vec<HashMap<String, OwnedVariant>>> =
            self.call("/", Interface::OurManager, "List", &()).await;
        let listed = listed.map_err(|error| {
            let unknown = error.chain().any(|cause| {
                cause.to_string().contains("UnknownMethod")
                    || cause.to_string().contains("UnknownInterface")
            });
            if unknown {
                error.context(Unfit::Another)
            } else {
                error
            }
        })?;
        Ok(listed.into_iter().map(|values| Shown { values }).collect())
    }

    /// The one download whose id begins so.
    pub(super) async fn find(&self, id: &str) -> anyhow::Result<Shown> {
        let id = id.rsplit('/').next().unwrap_or_default();
        let mut found = self.list().await?;
        found.retain(|shown| shown.id().starts_with(id));
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => bail!("there is no download `{id}`"),
            many => bail!("{many} downloads begin with `{id}`: give more of it"),
        }
    }

    /// Hears why a download fails, from now on.
    pub(super) async fn hear(&self, shown: &Shown) -> anyhow::Result<Heard> {
        let path = shown.text("Object");
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .path(path)
            .interface(Interface::Download(Family::Lomiri).name())
            .build()?;
        let mut signals = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let heard = Heard::default();
        let cause = Arc::clone(&heard.0);
        tokio::spawn(async move {
            while let Some(Ok(signal)) = signals.next().await {
                if let Some(text) = cause_of(&signal) {
                    // Nothing that is done under the lock stops half-way.
                    *cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
        });
        Ok(heard)
    }

    /// Calls the manager.
    pub(super) async fn manager<B, R>(&self, method: &'static str, body: &B) -> anyhow::Result<R>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.call("/", Interface::Manager(self.family), method, body)
            .await
    }

    /// Calls a download or a group.
    pub(super) async fn download<B>(
        &self,
        shown: &Shown,
        method: &'static str,
        body: &B,
    ) -> anyhow::Result<()>
    where
        B: Serialize + DynamicType,
    {
        let interface = if shown.truth("Group") {
            Interface::Group(Family::Lomiri)
        } else {
            Interface::Download(Family::Lomiri)
        };
        self.call(&shown.text("Object"), interface, method, body)
            .await
    }

    async fn call<B, R>(
        &self,
        path: &str,
        interface: Interface,
        method: &'static str,
        body: &B,
    ) -> anyhow::Result<R>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let service = self.family.service();
        let name = interface.name();
        let call = self
            .connection
            .call_method(Some(service), path, Some(name), method, body);
        let answer = timeout(PATIENCE, call)
            .await
            .with_context(|| format!("`{service}` does not answer"))?
            .with_context(|| format!("`{service}` refuses `{method}`"))?;
        let read = answer.body().deserialize();
        read.with_context(|| format!("`{service}` answers `{method}` with something else"))
    }
}

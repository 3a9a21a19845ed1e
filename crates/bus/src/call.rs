//! Method calls that end: a call and its typed answer, or why there is none.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Connection, Message};
use zbus::{DynamicType, OwnedVariant, Type};

/// How long a service may take, which includes its start. The same as in other bus libraries.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why a call to another service brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It took too long.
    #[error("`{service}` does not answer `{method}`")]
    Silent {
        /// Its name on the bus.
        service: String,
        /// The method that was called.
        method: &'static str,
    },
    /// It answered with an error, or the bus did in its place.
    #[error("`{service}` refuses `{method}`")]
    Refused {
        /// Its name on the bus.
        service: String,
        /// The method that was called.
        method: &'static str,
        /// What it said.
        source: Box<zbus::Error>,
    },
    /// It answered something else than its interface says.
    #[error("`{service}` answers `{method}` with something else than was asked for")]
    Garbled {
        /// Its name on the bus.
        service: String,
        /// The method that was called.
        method: &'static str,
        /// What does not fit.
        source: Box<zbus::Error>,
    },
}

impl CallError {
    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Silent { .. } => Some("restart that service and try again"),
            Self::Refused { .. } | Self::Garbled { .. } => None,
        }
    }
}

/// An interface of an object of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) service: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
}

impl<'a> Remote<'a> {
    /// The message bus itself.
    pub(crate) fn bus(connection: &'a Connection) -> Self {
        Self {
            connection,
            service: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
        }
    }

    /// Calls a method and takes its answer apart.
    pub(crate) async fn call<B, R>(&self, method: &'static str, body: &B) -> Result<R, CallError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let answer = self.send(method, body, PATIENCE).await?;
        self.read(method, &answer)
    }

    /// Calls a method and returns the answer as it came.
    pub(crate) async fn send<B>(
        &self,
        method: &'static str,
        body: &B,
        patience: Duration,
    ) -> Result<Message, CallError>
    where
        B: Serialize + DynamicType,
    {
        let Self {
            connection,
            service,
            path,
            interface,
        } = *self;
        let call = connection.call_method(Some(service), path, Some(interface), method, body);
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(CallError::Refused {
                service: service.to_owned(),
                method,
                source: Box::new(error),
            }),
            Err(_) => Err(CallError::Silent {
                service: service.to_owned(),
                method,
            }),
        }
    }

    /// Takes an answer apart.
    pub(crate) fn read<R>(&self, method: &'static str, answer: &Message) -> Result<R, CallError>
    where
        R: DeserializeOwned + Type,
    {
        answer
            .body()
            .deserialize()
            .map_err(|error| CallError::Garbled {
                service: self.service.to_owned(),
                method,
                source: Box::new(error),
            })
    }

    /// All properties of the interface.
    pub(crate) async fn properties(&self) -> Result<Properties, CallError> {
        let properties = Self {
            interface: "org.freedesktop.DBus.Properties",
            ..*self
        };
        let all = properties.call("GetAll", &self.interface).await?;
        Ok(Properties(all))
    }
}

/// Properties by name, of any type.
#[derive(Debug)]
pub(crate) struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    pub(crate) const fn new(all: HashMap<String, OwnedVariant>) -> Self {
        Self(all)
    }

    /// A property, if it is there and of that type.
    pub(crate) fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }
}

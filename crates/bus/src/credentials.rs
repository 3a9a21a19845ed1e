//! Who a caller is, as the bus knows it.

use std::collections::HashMap;

use zbus::{Connection, OwnedVariant};

use crate::call::{CallError, Properties, Remote};

/// What the bus knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its user.
    pub user: u32,
    /// What a security module of the kernel calls it, as the bus gives it: bytes, with a NUL at the end.
    pub label: Option<Vec<u8>>,
}

/// Asks the bus about a peer, by its unique name.
pub async fn credentials(connection: &Connection, peer: &str) -> Result<Credentials, CallError> {
    const METHOD: &str = "GetConnectionCredentials";
    let bus = Remote::bus(connection);
    let all: HashMap<String, OwnedVariant> = bus.call(METHOD, &peer).await?;
    let all = Properties::new(all);
    let user = all.get("UnixUserID").ok_or_else(|| CallError::Garbled {
        service: bus.service.to_owned(),
        method: METHOD,
        source: Box::new(zbus::Error::Failure("it names no user".to_owned())),
    })?;
    Ok(Credentials {
        user,
        label: all.get("LinuxSecurityLabel"),
    })
}

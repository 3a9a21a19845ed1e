//! Who is on the bus, or would be if it were called.

use zbus::Connection;

use crate::CallError;
use crate::call::Remote;

/// Whether somebody owns the name now.
pub async fn runs(connection: &Connection, name: &str) -> Result<bool, CallError> {
    Remote::bus(connection).call("NameHasOwner", &name).await
}

/// Whether somebody owns the name, or the bus can start somebody who does.
pub async fn reachable(connection: &Connection, name: &str) -> Result<bool, CallError> {
    if runs(connection, name).await? {
        return Ok(true);
    }
    let bus = Remote::bus(connection);
    let names: Vec<String> = bus.call("ListActivatableNames", &()).await?;
    Ok(names.iter().any(|known| known == name))
}

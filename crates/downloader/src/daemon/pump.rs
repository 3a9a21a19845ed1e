//! Between the bus and the core: calls come in with who makes them, messages go out in order.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use system_image_bus::credentials::credentials;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

use crate::job::caller::Caller;
use crate::log;

/// Calls that wait for the core. More wait in the bus.
pub(super) const CALLS: usize = 64;

/// Callers that are remembered: a name on the bus is never given to another one.
const CALLERS: usize = 256;

/// Takes calls off the bus, and asks it who makes them.
pub(super) async fn receive(
    mut messages: MessageStream,
    asking: Connection,
    apparmor: bool,
    calls: Sender<(Message, Caller)>,
) {
    let mut callers: HashMap<String, Caller> = HashMap::new();
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() != Type::MethodCall {
            continue;
        }
        let header = message.header();
        let Some(name) = header.sender().map(ToString::to_string) else {
            continue;
        };
        let caller = match callers.get(&name) {
            Some(caller) => caller.clone(),
            None => match credentials(&asking, &name).await {
                Ok(known) => {
                    if callers.len() >= CALLERS {
                        callers.clear();
                    }
                    let caller = Caller::new(known.user, known.label.as_deref(), apparmor);
                    callers.insert(name, caller.clone());
                    caller
                }
                // Mostly it has left, and hears no answer.
                Err(error) => {
                    log::say(format_args!("a call is ignored: {error}"));
                    continue;
                }
            },
        };
        drop(header);
        if calls.send((message, caller)).await.is_err() {
            return;
        }
    }
}

/// Sends messages until nobody makes more.
pub(super) async fn send(connection: Connection, mut messages: UnboundedReceiver<Message>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = connection.send(&message).await {
            log::say(format_args!("a message cannot be sent: {error}"));
        }
    }
}

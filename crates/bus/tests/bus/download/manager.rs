//! A download manager that does what the test tells it to.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde::Serialize;
use system_image_bus::download::Family;
use system_image_testkit::Bus;
use tokio::task::JoinHandle;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};
use zbus::{DynamicType, ObjectPath};

use crate::connect;

/// The path of every group.
pub(super) const PATH: &str = "/com/example/download/f7db96c7a65940c686de485f934d78c9";

/// A call that came.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) signature: String,
    pub(super) message: Message,
}

pub(super) struct Manager {
    connection: Connection,
    family: Family,
    calls: Arc<Mutex<Vec<Call>>>,
    answers: JoinHandle<()>,
}

impl Manager {
    pub(super) async fn start(bus: &Bus, family: Family) -> Self {
        let connection = connect(bus).await;
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let messages = MessageStream::from(&connection);
        let answers = answer(connection.clone(), messages, Arc::clone(&calls));
        let answers = tokio::spawn(answers);
        connection.request_name(family.service()).await.unwrap();
        Self {
            connection,
            family,
            calls,
            answers,
        }
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Sends a signal of the group.
    pub(super) async fn signal<B>(&self, name: &str, body: &B)
    where
        B: Serialize + DynamicType,
    {
        let (connection, interface) = (&self.connection, self.family.group());
        let sent = connection.emit_signal(None::<&str>, PATH, interface, name, body);
        sent.await.unwrap();
    }

    /// Leaves the bus.
    pub(super) async fn leave(self) {
        self.answers.abort();
        let _ = self.answers.await;
        self.connection.close().await.unwrap();
    }
}

async fn answer(connection: Connection, mut messages: MessageStream, calls: Arc<Mutex<Vec<Call>>>) {
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() != Type::MethodCall {
            continue;
        }
        let header = message.header();
        let call = Call {
            path: header.path().unwrap().to_string(),
            interface: header.interface().unwrap().to_string(),
            member: header.member().unwrap().to_string(),
            signature: message.body().signature().to_string_no_parens(),
            message: message.clone(),
        };
        let creates = call.member == "createDownloadGroup";
        calls.lock().unwrap().push(call);
        let sent = if creates {
            let path = ObjectPath::try_from(PATH).unwrap();
            connection.reply(&header, &path).await
        } else {
            connection.reply(&header, &()).await
        };
        sent.unwrap();
    }
}

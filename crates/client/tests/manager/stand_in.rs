//! A download manager that fails as a test wants it to.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use futures_util::StreamExt;
use system_image_testkit::Bus;
use zbus::message::Type;
use zbus::{Connection, DynamicType, Message, MessageStream, ObjectPath, OwnedVariant};

const SERVICE: &str = "com.canonical.applications.Downloader";
const GROUP: &str = "com.canonical.applications.GroupDownload";
const PATH: &str = "/com/canonical/applications/download/1";

/// What is asked of it in `createDownloadGroup`.
type Body = (
    Vec<(String, String, String)>,
    String,
    bool,
    HashMap<String, OwnedVariant>,
    HashMap<String, String>,
);

/// What it does with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// It makes none.
    Refuses,
    /// It takes it, and is never heard of again.
    Nothing,
    /// It has so many bytes, and goes on for ever.
    Has(u64),
    /// It has some bytes, and dies.
    Dies,
    /// It says that all is well, and has written this.
    Writes(&'static [u8]),
    /// It says that all is well.
    Lies,
}

/// One on a bus, until the bus ends.
pub(crate) struct StandIn(Arc<Mutex<Vec<String>>>);

impl StandIn {
    pub(crate) fn start(bus: &Bus, does: Does) -> Self {
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let (address, heard) = (bus.address().to_owned(), Arc::clone(&calls));
        let (ready, there) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let builder = zbus::connection::Builder::address(address.as_str());
                let connection = builder.build().await.unwrap();
                let messages = MessageStream::from(&connection);
                connection.request_name(SERVICE).await.unwrap();
                ready.send(()).unwrap();
                answer(&connection, messages, does, &heard).await;
                connection.close().await.unwrap();
            });
        });
        there.recv().unwrap();
        Self(calls)
    }

    /// The calls so far, such as `allowGSMDownload(true)`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

async fn answer(
    connection: &Connection,
    mut messages: MessageStream,
    does: Does,
    calls: &Mutex<Vec<String>>,
) {
    let mut files = Vec::new();
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() != Type::MethodCall {
            continue;
        }
        let header = message.header();
        let member = header.member().unwrap().to_string();
        let argument: Result<bool, _> = message.body().deserialize();
        let argument = argument.map_or(String::new(), |allowed| allowed.to_string());
        calls.lock().unwrap().push(format!("{member}({argument})"));
        if member == "createDownloadGroup" {
            files = group(connection, &message, does).await;
            continue;
        }
        connection.reply(&header, &()).await.unwrap();
        match (member.as_str(), does) {
            ("start", Does::Nothing) => {}
            ("start", does) => {
                signal(connection, "started", &true).await;
                if !work(connection, does, &files).await {
                    return;
                }
            }
            ("cancel", _) => signal(connection, "canceled", &true).await,
            _ => {}
        }
    }
}

/// Answers with a group or an error; the files that are wanted.
async fn group(connection: &Connection, message: &Message, does: Does) -> Vec<String> {
    let header = message.header();
    if does == Does::Refuses {
        let error = "com.example.Error";
        connection.reply_error(&header, error, &"no").await.unwrap();
        return Vec::new();
    }
    let (files, _, _, _, headers): Body = message.body().deserialize().unwrap();
    assert!(headers["User-Agent"].starts_with("Ubuntu System Image Upgrade Client: "));
    let path = ObjectPath::try_from(PATH).unwrap();
    connection.reply(&header, &path).await.unwrap();
    files.into_iter().map(|(_, place, _)| place).collect()
}

/// Whether it is still there afterwards.
async fn work(connection: &Connection, does: Does, files: &[String]) -> bool {
    match does {
        Does::Refuses | Does::Nothing => {}
        Does::Has(bytes) => signal(connection, "progress", &(bytes, bytes)).await,
        Does::Dies => {
            fs::write(format!("{}.tmp", files[0]), b"some").unwrap();
            signal(connection, "progress", &(4_u64, 100_u64)).await;
            return false;
        }
        Does::Writes(bytes) => {
            for file in files {
                fs::write(file, bytes).unwrap();
            }
            signal(connection, "finished", &files.to_vec()).await;
        }
        Does::Lies => signal(connection, "finished", &files.to_vec()).await,
    }
    true
}

async fn signal<B: serde::Serialize + DynamicType>(connection: &Connection, name: &str, body: &B) {
    let sent = connection.emit_signal(None::<&str>, PATH, GROUP, name, body);
    sent.await.unwrap();
}

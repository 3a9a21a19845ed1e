//! What goes out: answers and signals, in the order in which they were put in.
//!
//! The core never waits for the bus; a task sends what it puts here. Every signal of a download goes
//! out for both families, each on a path of its own, so that a listener hears it once.

use std::collections::HashMap;

use serde::Serialize;
use system_image_bus::download::Family;
use tokio::sync::mpsc::UnboundedSender;
use zbus::message::Header;
use zbus::wire::Type;
use zbus::{DynamicType, Message, ObjectPath, Variant};

use super::interfaces::Interface;
use crate::job::download::{Download, Shape};
use crate::job::failure::{Cause, Failure, Refusal};
use crate::job::ids;
use crate::log;

/// Where messages are put.
#[derive(Clone, Debug)]
pub struct Outbox(UnboundedSender<Message>);

/// Changed properties.
pub type Changed<'v> = HashMap<&'static str, Variant<'v>>;

impl Outbox {
    /// Messages go to whoever holds the other end.
    pub const fn new(messages: UnboundedSender<Message>) -> Self {
        Self(messages)
    }

    /// Answers a call.
    pub fn reply<B: Serialize + DynamicType>(&self, call: &Header<'_>, body: &B) {
        self.put(Message::method_return(call).build(body));
    }

    /// Answers a call with an error.
    pub fn refuse(&self, call: &Header<'_>, refusal: &Refusal) {
        let text = refusal.to_string();
        self.put(Message::error(call, refusal.name()).build(&text));
    }

    /// Tells of a new download.
    pub fn created(&self, tail: &str) {
        for family in Family::ALL {
            let path = ids::path(family, tail);
            if let Ok(path) = ObjectPath::try_from(path) {
                self.signal("/", Interface::Manager(family), "downloadCreated", &path);
            }
        }
    }

    /// A signal of a download.
    pub fn tell<B: Serialize + DynamicType>(&self, download: &Download, name: &str, body: &B) {
        let tail = download.tail();
        for family in Family::ALL {
            let path = ids::path(family, &tail);
            self.signal(&path, interface(download, family), name, body);
        }
    }

    /// Why a download failed: the typed signal and then `error`. `url` is of the file that failed.
    pub fn failed(&self, download: &Download, url: &str, failure: &Failure) {
        self.cause(download, url, &failure.cause);
        match download.shape {
            Shape::Group => self.tell(download, "error", &format!("{url}:{}", failure.text)),
            Shape::Single | Shape::Message => self.tell(download, "error", &failure.text),
        }
    }

    fn cause(&self, download: &Download, url: &str, cause: &Cause) {
        match cause {
            Cause::Http { code, reason } => {
                self.typed(download, url, "httpError", (*code, reason.as_str()));
            }
            Cause::Network { code, text } => {
                self.typed(download, url, "networkError", (*code, text.as_str()));
            }
            Cause::Authentication { proxy, text } => {
                self.typed(
                    download,
                    url,
                    "authError",
                    (i32::from(*proxy), text.as_str()),
                );
            }
            Cause::Process {
                kind,
                name,
                status,
                stdout,
                stderr,
            } => {
                let error = (*kind, *name, *status, stdout.as_str(), stderr.as_str());
                self.typed(download, url, "processError", error);
            }
            // A group has no signal for it.
            Cause::Hash { .. } if download.shape == Shape::Group => {}
            Cause::Hash {
                algorithm,
                want,
                got,
            } => {
                let error = (algorithm.as_str(), want.as_str(), got.as_str());
                self.typed(download, url, "hashError", error);
            }
        }
    }

    /// A typed signal; a group says of which file.
    fn typed<E: Serialize + Type>(&self, download: &Download, url: &str, name: &str, error: E) {
        match download.shape {
            Shape::Group => self.tell(download, name, &(url, error)),
            Shape::Single | Shape::Message => self.tell(download, name, &(error,)),
        }
    }

    /// What a download waits for now; nothing if it does not wait.
    pub fn waits(&self, download: &Download) {
        let (word, text) = match download.held {
            Some(held) => (held.word(), held.to_string()),
            None => ("", String::new()),
        };
        let tail = download.tail();
        for family in Family::ALL {
            let path = ids::path(family, &tail);
            self.signal(&path, Interface::OurDownload, "Waits", &(word, &text));
        }
    }

    /// Tells of changed properties of one of a download's interfaces.
    pub fn changed(
        &self,
        download: &Download,
        of: impl Fn(Family) -> Interface,
        changed: &Changed<'_>,
    ) {
        let tail = download.tail();
        let none: &[&str] = &[];
        for family in Family::ALL {
            let path = ids::path(family, &tail);
            let body = (of(family).name(), changed, none);
            self.signal(&path, Interface::Properties, "PropertiesChanged", &body);
        }
    }

    fn signal<B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: Interface,
        name: &str,
        body: &B,
    ) {
        let signal = Message::signal(path, interface.name(), name);
        self.put(signal.build(body));
    }

    fn put(&self, message: zbus::Result<Message>) {
        match message {
            // Nobody takes them any more when the process ends.
            Ok(message) => drop(self.0.send(message)),
            Err(error) => log::say(format_args!("a message cannot be made: {error}")),
        }
    }
}

/// The interface of a download in a family.
pub fn interface(download: &Download, family: Family) -> Interface {
    match download.shape {
        Shape::Group => Interface::Group(family),
        Shape::Single | Shape::Message => Interface::Download(family),
    }
}

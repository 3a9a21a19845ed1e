//! What the signals of a group say.

use camino::Utf8PathBuf;
use zbus::Message;

/// What happened to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Requests are being sent.
    Started,
    /// Bytes have come. The total grows while the sizes of files become known.
    Progress {
        /// Bytes so far.
        received: u64,
        /// Bytes in the end.
        total: u64,
    },
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// A file is complete and is being checked.
    Processing(Utf8PathBuf),
    /// What was asked for was not done, because there was nothing to do.
    Unmoved(Control),
    /// It was given up as asked for. The last event.
    Canceled,
    /// It failed. The last event.
    Failed(Failure),
    /// All files are at their places. The last event.
    Finished(Vec<Utf8PathBuf>),
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Canceled | Self::Failed(_) | Self::Finished(_))
    }
}

/// What a group can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// To begin.
    Start,
    /// To stand still.
    Pause,
    /// To go on.
    Resume,
    /// To give up.
    Cancel,
}

/// Why a group failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The manager's own words, such as `http://host/file:NETWORK ERROR`.
    pub text: String,
    /// The same for machines, if it says more.
    pub cause: Option<Cause>,
}

/// What a failed file's URL led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server answered with an error.
    Http {
        /// Which file.
        url: String,
        /// The status, such as 404.
        status: i32,
        /// The server's reason.
        reason: String,
    },
    /// The server was not reached, or not to the end.
    Network {
        /// Which file.
        url: String,
        /// A number of the table in the downloader spec, 8.
        code: i32,
        /// The same in words.
        text: String,
    },
    /// The server or the proxy wants to know who asks.
    Authentication {
        /// Which file.
        url: String,
        /// Whether it is the proxy.
        proxy: bool,
        /// What it said.
        text: String,
    },
    /// A command after the download failed.
    Process {
        /// Which file.
        url: String,
        /// How, in a word.
        name: String,
        /// Its exit status.
        status: i32,
        /// What it wrote to standard error.
        stderr: String,
    },
}

/// What a signal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Event(Event),
    /// It belongs to the error that follows.
    Cause(Cause),
    /// Somebody else's business.
    Other,
}

/// Reads the signal `name` of a group's interface.
pub(super) fn read(name: &str, signal: &Message) -> zbus::Result<Signal> {
    let body = signal.body();
    let done = |event, control| {
        let done: bool = body.deserialize()?;
        Ok(Signal::Event(if done {
            event
        } else {
            Event::Unmoved(control)
        }))
    };
    let event = match name {
        "started" => return done(Event::Started, Control::Start),
        "paused" => return done(Event::Paused, Control::Pause),
        "resumed" => return done(Event::Resumed, Control::Resume),
        "canceled" => return done(Event::Canceled, Control::Cancel),
        "progress" => {
            let (received, total) = body.deserialize()?;
            Event::Progress { received, total }
        }
        "processing" => Event::Processing(body.deserialize::<String>()?.into()),
        "finished" => {
            let paths: Vec<String> = body.deserialize()?;
            Event::Finished(paths.into_iter().map(Into::into).collect())
        }
        "error" => Event::Failed(Failure {
            text: body.deserialize()?,
            cause: None,
        }),
        "httpError" => {
            let (url, (status, reason)) = body.deserialize()?;
            return Ok(Signal::Cause(Cause::Http {
                url,
                status,
                reason,
            }));
        }
        "networkError" => {
            let (url, (code, text)) = body.deserialize()?;
            return Ok(Signal::Cause(Cause::Network { url, code, text }));
        }
        "authError" => {
            let (url, (kind, text)): (_, (i32, _)) = body.deserialize()?;
            let proxy = kind == 1;
            return Ok(Signal::Cause(Cause::Authentication { url, proxy, text }));
        }
        "processError" => {
            type Process = (String, (i32, String, i32, String, String));
            let (url, (_, name, status, _, stderr)): Process = body.deserialize()?;
            return Ok(Signal::Cause(Cause::Process {
                url,
                name,
                status,
                stderr,
            }));
        }
        _ => return Ok(Signal::Other),
    };
    Ok(Signal::Event(event))
}

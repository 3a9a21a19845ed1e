//! Brings the bytes of one file, and says in the words of the wire why it could not
//! (specification, section 8).

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8PathBuf;
use http::StatusCode;
use rustix::fs::OFlags;
use system_image_fetch::{Event, FetchError, Fetcher, Received, Request, Trouble, store};

use super::Counter;
use crate::job::failure::{Failure, code};
use crate::log;

/// What is wanted, and from where.
#[derive(Debug)]
pub struct Order {
    /// The engine's side of it.
    pub fetcher: Fetcher,
    /// The file.
    pub request: Request,
    /// Where its bytes are.
    pub source: Source,
    /// A digest as given that no file can have, because it is none.
    pub impossible: Option<String>,
}

/// Where bytes are.
#[derive(Debug)]
pub enum Source {
    /// On a server.
    Network,
    /// In the URL itself.
    Data(Vec<u8>),
    /// On this machine.
    File(Utf8PathBuf),
}

/// Why a file did not come.
#[derive(Debug)]
pub struct Missed {
    /// In the words of the wire.
    pub failure: Failure,
    /// Whether the server could not be reached at all.
    pub unreachable: bool,
}

impl Missed {
    /// Not because of the network.
    pub const fn for_good(failure: Failure) -> Self {
        Self {
            failure,
            unreachable: false,
        }
    }
}

/// Brings the file under its temporary name, resuming what is there.
pub async fn bring(order: Order, counter: &Counter) -> Result<Received, Missed> {
    let Order {
        fetcher,
        request,
        source,
        impossible,
    } = order;
    let mut on_event = |event| match event {
        Event::Progress(progress) => counter.set(progress.received, progress.total),
        Event::Retrying { wait, why } => {
            let url = log::public(&request.url);
            log::say(format_args!(
                "{url}: {why}; again in {} s",
                wait.as_secs_f32()
            ));
        }
    };
    let received = match source {
        Source::Network => fetcher.receive(&request, &mut on_event).await,
        Source::Data(bytes) => {
            let total = u64::try_from(bytes.len()).ok();
            store(&request, Cursor::new(bytes), total, &mut on_event).await
        }
        Source::File(path) => {
            let opened = open(&path);
            let (file, total) =
                opened.map_err(|error| Missed::for_good(unreadable(&path, &error)))?;
            store(&request, file, Some(total), &mut on_event).await
        }
    };
    let received = received.map_err(|error| Missed {
        failure: failure_of(&error),
        unreachable: is_unreachable(&error),
    })?;
    let (Some(want), Some(got)) = (impossible, &received.digest) else {
        return Ok(received);
    };
    let algorithm = got.algorithm().to_string();
    let failure = Failure::hash(algorithm, want, got.to_string());
    Err(Missed::for_good(failure))
}

/// Opens a plain file without waiting for anything, such as the other end of a pipe; its size.
fn open(path: &Utf8PathBuf) -> io::Result<(File, u64)> {
    let mut options = File::options();
    options.read(true);
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata.len()))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a plain file",
        ))
    }
}

fn unreadable(path: &Utf8PathBuf, error: &io::Error) -> Failure {
    let number = match error.kind() {
        io::ErrorKind::PermissionDenied => code::ACCESS_DENIED,
        _ => code::NOT_FOUND,
    };
    Failure::network(number, format!("{error}: {path}"))
}

fn is_unreachable(error: &FetchError) -> bool {
    let FetchError::Transfer { trouble, .. } = error else {
        return false;
    };
    matches!(
        trouble,
        Trouble::HostNotFound
            | Trouble::ConnectTimeout
            | Trouble::Unreachable
            | Trouble::Lost
            | Trouble::Stalled
            | Trouble::ProxyNotFound
            | Trouble::ProxyTimeout
    )
}

/// An error of the engine in the words of the wire.
pub fn failure_of(error: &FetchError) -> Failure {
    match error {
        FetchError::Absent { status, .. } | FetchError::Status { status, .. } => {
            let status = StatusCode::from_u16(*status).unwrap_or_default();
            let reason = status.canonical_reason().unwrap_or_default();
            Failure::http(status.as_u16(), reason)
        }
        FetchError::Transfer { trouble, .. } => of_trouble(*trouble),
        FetchError::Redirects { .. } => Failure::network(code::REDIRECTS, error.to_string()),
        FetchError::Loop { .. } => Failure::network(code::NOT_FOUND, "ContentNotFoundError"),
        FetchError::Size { .. } | FetchError::TooLong { .. } => {
            Failure::network(code::CLOSED, error.to_string())
        }
        FetchError::Checksum { want, got, .. } => {
            let algorithm = want.algorithm().to_string();
            Failure::hash(algorithm, want.to_string(), got.to_string())
        }
        FetchError::Full { path, source }
        | FetchError::Disk { path, source }
        | FetchError::Temporary {
            directory: path,
            source,
        } => super::finish::disk(path, source),
        FetchError::Exists { path } => {
            let error = io::Error::from_raw_os_error(rustix::io::Errno::EXIST.raw_os_error());
            super::finish::disk(path, &error)
        }
        FetchError::Scheme { scheme, .. } => {
            Failure::network(code::PROTOCOL, format!("Protocol \"{scheme}\" is unknown"))
        }
        FetchError::Url { .. } => Failure::network(code::PROTOCOL, error.to_string()),
        FetchError::InUse { .. }
        | FetchError::Conflict { .. }
        | FetchError::Header { .. }
        | FetchError::Setup(_) => Failure::network(code::UNKNOWN, error.to_string()),
    }
}

fn of_trouble(trouble: Trouble) -> Failure {
    let number = match trouble {
        Trouble::Untrusted | Trouble::Handshake => return Failure::tls(trouble.to_string()),
        Trouble::ProxyAuthentication => return Failure::proxy_authentication(trouble.to_string()),
        Trouble::Refused => return Failure::network(code::REFUSED, "Connection refused"),
        Trouble::HostNotFound => code::NO_HOST,
        Trouble::ConnectTimeout | Trouble::Stalled => code::TIMEOUT,
        Trouble::Unreachable => code::TEMPORARY,
        Trouble::Lost => code::CLOSED,
        Trouble::Garbled => code::GARBLED,
        Trouble::ProxyRefused => code::PROXY_REFUSED,
        Trouble::ProxyNotFound => code::PROXY_NOT_FOUND,
        Trouble::ProxyLost => code::PROXY_CLOSED,
        Trouble::ProxyTimeout => code::PROXY_TIMEOUT,
        Trouble::ProxyFailed => code::PROXY_UNKNOWN,
    };
    Failure::network(number, trouble.to_string())
}

//! How a download fails, in the words of the wire (specification, section 8).
//!
//! Every failure ends in one `error` with a fixed text. A typed cause goes before it, always: the
//! published client library listens to nothing else.

use super::ids;

/// Why a download failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The typed signal.
    pub cause: Cause,
    /// The text of `error`.
    pub text: String,
}

/// What a typed signal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An HTTP status that brings no file.
    Http {
        /// The status.
        code: i32,
        /// Its reason phrase.
        reason: String,
    },
    /// The network, the server, TLS or the disk.
    Network {
        /// A number of the specification's table.
        code: i32,
        /// For people.
        text: String,
    },
    /// Somebody wants to know who asks.
    Authentication {
        /// Whether that is the proxy.
        proxy: bool,
        /// For people.
        text: String,
    },
    /// A command was run and failed, or could not be run.
    Process {
        /// 0 normal exit or failed to start, 1 crashed.
        kind: i32,
        /// `ErrorInProcess`, `FailedToStart`, …
        name: &'static str,
        /// The exit code.
        status: i32,
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// The digest is another one.
    Hash {
        /// Its algorithm.
        algorithm: String,
        /// What it should be.
        want: String,
        /// What it is.
        got: String,
    },
}

/// Numbers of network errors.
pub mod code {
    /// Nobody listens.
    pub const REFUSED: i32 = 1;
    /// The connection ended early.
    pub const CLOSED: i32 = 2;
    /// There is no such host.
    pub const NO_HOST: i32 = 3;
    /// Nothing came for too long.
    pub const TIMEOUT: i32 = 4;
    /// No agreement on TLS, or a certificate that is not trusted.
    pub const TLS: i32 = 6;
    /// Too many redirects.
    pub const REDIRECTS: i32 = 10;
    /// There is no network now, or no way.
    pub const TEMPORARY: i32 = 7;
    /// Something else, the disk too.
    pub const UNKNOWN: i32 = 99;
    /// The proxy does not take connections.
    pub const PROXY_REFUSED: i32 = 101;
    /// The proxy closed the connection.
    pub const PROXY_CLOSED: i32 = 102;
    /// The proxy cannot be found.
    pub const PROXY_NOT_FOUND: i32 = 103;
    /// The proxy does not react.
    pub const PROXY_TIMEOUT: i32 = 104;
    /// The proxy does something else.
    pub const PROXY_UNKNOWN: i32 = 199;
    /// A file of this machine may not be read.
    pub const ACCESS_DENIED: i32 = 201;
    /// There is nothing, or redirects lead in a circle.
    pub const NOT_FOUND: i32 = 203;
    /// No such protocol.
    pub const PROTOCOL: i32 = 301;
    /// The answer makes no sense.
    pub const GARBLED: i32 = 399;
}

const NETWORK: &str = "NETWORK ERROR";
const COMMAND: &str = "COMMAND ERROR";

impl Failure {
    /// The network's.
    pub fn network(code: i32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            cause: Cause::Network { code, text },
            text: NETWORK.to_owned(),
        }
    }

    /// A server's status.
    pub fn http(code: u16, reason: &str) -> Self {
        Self {
            cause: Cause::Http {
                code: code.into(),
                reason: reason.to_owned(),
            },
            text: NETWORK.to_owned(),
        }
    }

    /// TLS.
    pub fn tls(text: impl Into<String>) -> Self {
        Self {
            text: "SSL ERROR".to_owned(),
            ..Self::network(code::TLS, text)
        }
    }

    /// A proxy that wants to know who asks.
    pub fn proxy_authentication(text: impl Into<String>) -> Self {
        Self {
            cause: Cause::Authentication {
                proxy: true,
                text: text.into(),
            },
            text: "PROXY_AUTHENTICATION ERROR".to_owned(),
        }
    }

    /// The digest.
    pub fn hash(algorithm: String, want: String, got: String) -> Self {
        Self {
            cause: Cause::Hash {
                algorithm,
                want,
                got,
            },
            text: "HASH ERROR".to_owned(),
        }
    }

    /// The disk, with the system's error number.
    pub fn disk(number: i32, text: impl Into<String>) -> Self {
        Self {
            text: format!("FILE SYSTEM ERROR: {number}"),
            ..Self::network(code::UNKNOWN, text)
        }
    }

    /// A command that was not run.
    pub fn not_run(why: impl Into<String>) -> Self {
        Self {
            cause: Cause::Process {
                kind: 0,
                name: "FailedToStart",
                status: 0,
                stdout: String::new(),
                stderr: why.into(),
            },
            text: COMMAND.to_owned(),
        }
    }

    /// A command that failed.
    pub fn command(status: Option<i32>, stdout: String, stderr: String) -> Self {
        Self {
            cause: Cause::Process {
                kind: i32::from(status.is_none()),
                name: "ErrorInProcess",
                status: status.unwrap_or_default(),
                stdout,
                stderr,
            },
            text: COMMAND.to_owned(),
        }
    }
}

/// What callers did wrong, as D-Bus errors with the original's texts (specification, sections 5, 6,
/// 10 and 14).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `InvalidArgs`.
    #[error("{0}")]
    Invalid(String),
    /// `NotSupported`.
    #[error("{0}")]
    Unsupported(String),
    /// `AccessDenied`.
    #[error("{0}")]
    Denied(String),
    /// `LimitsExceeded`.
    #[error("{0}")]
    Limits(String),
    /// `UnknownObject`.
    #[error("No such object path '{0}'")]
    NoObject(String),
    /// `UnknownMethod`.
    #[error("{0}")]
    NoMethod(String),
    /// `Failed`.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// The error's name on the bus.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "org.freedesktop.DBus.Error.InvalidArgs",
            Self::Unsupported(_) => "org.freedesktop.DBus.Error.NotSupported",
            Self::Denied(_) => "org.freedesktop.DBus.Error.AccessDenied",
            Self::Limits(_) => "org.freedesktop.DBus.Error.LimitsExceeded",
            Self::NoObject(_) => "org.freedesktop.DBus.Error.UnknownObject",
            Self::NoMethod(_) => "org.freedesktop.DBus.Error.UnknownMethod",
            Self::Failed(_) => "org.freedesktop.DBus.Error.Failed",
        }
    }

    /// The URL is none.
    pub fn url(url: &str) -> Self {
        Self::Invalid(format!("Invalid URL: '{url}'"))
    }

    /// The algorithm is none.
    pub fn algorithm(algorithm: &str) -> Self {
        Self::Invalid(format!("Invalid hash algorithm: '{algorithm}'"))
    }

    /// The id cannot be had.
    pub fn id(id: &str) -> Self {
        let why = if ids::is_element(id) {
            "is in use"
        } else {
            "cannot be part of an object path"
        };
        Self::Invalid(format!("The object path '{id}' {why}"))
    }

    /// The target cannot be written.
    pub fn not_writable(path: &camino::Utf8Path) -> Self {
        Self::Denied(format!("Destination file path is not writable: '{path}'"))
    }

    /// The download is not idle any more.
    pub fn started() -> Self {
        Self::Unsupported("The path cannot be changed in a started download.".to_owned())
    }
}

//! In what way a transfer failed, as far as the network says.

use std::error::Error;
use std::io;

use crate::retry::Failure;

/// In what way a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nobody listens there.
    #[error("Could not connect to the server")]
    Refused,
    /// There is no such host, or nobody can say where it is.
    #[error("Could not resolve the host name")]
    HostNotFound,
    /// The server does not react.
    #[error("Could not connect to the server in time")]
    ConnectTimeout,
    /// No connection came about for another reason: there is no network, or no way.
    #[error("Could not connect to the server")]
    Unreachable,
    /// The server's certificate is not trusted, or is another's, or its time is over.
    #[error("The server's certificate is not trusted")]
    Untrusted,
    /// There is no agreement on TLS, or the server does not speak it.
    #[error("The TLS handshake failed")]
    Handshake,
    /// The connection ended before the file did.
    #[error("The connection was closed before the file was complete")]
    Lost,
    /// Too little arrived for too long.
    #[error("Operation too slow or timed out")]
    Stalled,
    /// The answer is not HTTP, or contradicts itself or the question.
    #[error("The server's answer makes no sense")]
    Garbled,
    /// Nobody listens where the proxy should be.
    #[error("Could not connect to the proxy")]
    ProxyRefused,
    /// There is no such proxy.
    #[error("Could not resolve the proxy's name")]
    ProxyNotFound,
    /// The proxy closed the connection before it answered.
    #[error("The proxy closed the connection")]
    ProxyLost,
    /// The proxy does not react.
    #[error("Could not connect to the proxy in time")]
    ProxyTimeout,
    /// The proxy wants to know who asks before it connects to a server.
    #[error("The proxy wants authentication")]
    ProxyAuthentication,
    /// The proxy does not connect to the server.
    #[error("The proxy could not connect to the server")]
    ProxyFailed,
}

impl Trouble {
    /// What came of a request that got no answer, by its causes. If it was sent through a proxy,
    /// every trouble on the way is one of the proxy.
    pub(crate) fn before_answer(error: &reqwest::Error, proxied: bool) -> Self {
        let trouble = Self::by_causes(error);
        if !proxied {
            return trouble;
        }
        match trouble {
            Self::Refused => Self::ProxyRefused,
            Self::HostNotFound => Self::ProxyNotFound,
            Self::ConnectTimeout => Self::ProxyTimeout,
            Self::Lost => Self::ProxyLost,
            Self::Unreachable => Self::ProxyFailed,
            other => other,
        }
    }

    fn by_causes(error: &reqwest::Error) -> Self {
        let connecting = error.is_connect();
        if connecting && error.is_dns() {
            return Self::HostNotFound;
        }
        let mut kind = None;
        for cause in causes(error) {
            if let Some(error) = cause.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if let Some(error) = cause.downcast_ref::<hyper::Error>()
                && error.is_parse()
            {
                return Self::Garbled;
            }
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                // The innermost is the system's own.
                kind = Some(error.kind());
            }
            if let Some(trouble) = Self::of_tunnel(&cause.to_string()) {
                return trouble;
            }
        }
        match kind {
            _ if !connecting => Self::Lost,
            Some(io::ErrorKind::ConnectionRefused) => Self::Refused,
            Some(io::ErrorKind::TimedOut) => Self::ConnectTimeout,
            _ if error.is_timeout() => Self::ConnectTimeout,
            // The connection was there, and ended when TLS began.
            Some(
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe,
            ) => Self::Handshake,
            _ => Self::Unreachable,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            // The system has no trusted certificates (`tls`).
            | rustls::Error::General(_) => Self::Untrusted,
            _ => Self::Handshake,
        }
    }

    /// What a proxy said when it was asked to connect to a server. The library does not let its type
    /// for this out, so that there is only the text; a test with a real proxy holds it to its words.
    fn of_tunnel(text: &str) -> Option<Self> {
        let told = text.strip_prefix("tunnel error: ")?;
        match told {
            "proxy authorization required" => Some(Self::ProxyAuthentication),
            "unexpected end of file" => Some(Self::ProxyLost),
            "unsuccessful" | "proxy response headers too long" => Some(Self::ProxyFailed),
            // The cause below says it better.
            _ => None,
        }
    }

    /// What the retry rules make of it.
    pub(crate) fn failure(self, received: u64) -> Failure {
        match self {
            Self::Lost => Failure::Lost { received },
            Self::Stalled => Failure::Stalled { received },
            Self::Garbled => Failure::Garbled,
            Self::Refused
            | Self::HostNotFound
            | Self::ConnectTimeout
            | Self::Unreachable
            | Self::Handshake
            | Self::ProxyRefused
            | Self::ProxyNotFound
            | Self::ProxyLost
            | Self::ProxyTimeout
            | Self::ProxyFailed => Failure::Unreachable,
            Self::Untrusted | Self::ProxyAuthentication => Failure::Refused,
        }
    }

    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Refused | Self::HostNotFound | Self::ConnectTimeout | Self::Unreachable => {
                "check the network and the server's address"
            }
            Self::Untrusted | Self::Handshake => {
                "check the server's address, that the package `ca-certificates` is installed and that the clock is right"
            }
            Self::Lost | Self::Stalled => "try again: what has been received is kept",
            Self::Garbled => "check that no proxy or log-in page answers instead",
            Self::ProxyRefused
            | Self::ProxyNotFound
            | Self::ProxyLost
            | Self::ProxyTimeout
            | Self::ProxyAuthentication
            | Self::ProxyFailed => "check the proxy, which the environment or the caller names",
        }
    }
}

/// An error's causes from the outermost to the innermost, those within I/O errors included, which
/// the usual way passes over.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error: &'e (dyn Error + 'static) = *error;
        let within = error.downcast_ref().and_then(io::Error::get_ref);
        match within {
            Some(within) => Some(within as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

//! The HTTP client: connections, and what its errors mean.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Proxy, Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;

use crate::error::{FetchError, Trouble};
use crate::redirect::Refused;
use crate::retry::{Failure, Patience};
use crate::tls;

/// Connections to one server that are kept for later: as many as one download uses.
const MAX_IDLE: usize = 8;

/// Bytes of one HTTP/2 download that may be under way or wait in memory.
const STREAM_WINDOW: u32 = 512 << 10;

/// The same for all downloads over one connection. Some of them wait for a limit of speed with their
/// windows full, and the others must go on.
const CONNECTION_WINDOW: u32 = 6 << 20;

/// How to fetch.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Longest time to find and reach a server, TLS included.
    pub connect_timeout: Duration,
    /// Time in which at least [`min_progress`](Self::min_progress) bytes must arrive, or the
    /// answer's head.
    pub stall_timeout: Duration,
    /// Slower than so many bytes within the [`stall_timeout`](Self::stall_timeout) counts as
    /// stalled: a server that sends a byte now and then must not hold a device for ever.
    pub min_progress: u64,
    /// When to try again.
    pub patience: Patience,
    /// Redirects that are followed for one request.
    pub max_redirects: usize,
    /// The proxy for everything, `http://host:port`; else those of the environment are used.
    pub proxy: Option<String>,
    /// Certificates that servers may show although nobody has signed them whom the system trusts.
    /// The name and the time must still be right.
    pub self_signed: Vec<CertificateDer<'static>>,
}

impl Settings {
    /// The usual settings: 30 seconds to connect, at least 1 KiB a minute, five attempts and five
    /// redirects.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            user_agent: user_agent.into(),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            min_progress: 1 << 10,
            patience: Patience::default(),
            // As the original.
            max_redirects: 5,
            proxy: None,
            self_signed: Vec::new(),
        }
    }
}

/// A client with the system's trusted roots.
pub(crate) fn build(settings: &Settings) -> Result<Client, FetchError> {
    let agent = HeaderValue::from_bytes(settings.user_agent.as_bytes())
        .map_err(|error| FetchError::Setup(error.into()))?;
    let mut client = Client::builder()
        .user_agent(agent)
        .connect_timeout(settings.connect_timeout)
        // Redirects are followed by us, who know the headers that are secret.
        .redirect(redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(MAX_IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .tls_backend_preconfigured(tls::config(&settings.self_signed)?);
    if let Some(proxy) = &settings.proxy {
        let proxy = Proxy::all(proxy).map_err(|error| FetchError::Setup(error.into()))?;
        client = client.proxy(proxy);
    }
    client
        .build()
        .map_err(|error| FetchError::Setup(error.into()))
}

/// Why one attempt failed: what to tell the user if it was the last, and what the retry rules
/// make of it.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: FetchError,
    pub(crate) failure: Failure,
}

impl Failed {
    /// What we refuse ourselves, or the disk did: trying again would not help.
    pub(crate) fn for_good(error: FetchError) -> Self {
        Self {
            error,
            failure: Failure::Refused,
        }
    }

    pub(crate) fn garbled(url: &str) -> Self {
        Self {
            error: transfer(url, Trouble::Garbled, None),
            failure: Failure::Garbled,
        }
    }

    pub(crate) fn lost(url: &str, received: u64) -> Self {
        Self {
            error: transfer(url, Trouble::Lost, None),
            failure: Failure::Lost { received },
        }
    }

    pub(crate) fn stalled(url: &str, received: u64) -> Self {
        Self {
            error: transfer(url, Trouble::Stalled, None),
            failure: Failure::Stalled { received },
        }
    }

    /// An answer's status other than success.
    pub(crate) fn status(url: &str, response: &Response, now: SystemTime) -> Self {
        let (url, status) = (url.to_owned(), response.status());
        let code = status.as_u16();
        let failure = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let error = FetchError::Absent { url, status: code };
                return Self {
                    error,
                    failure: Failure::Absent,
                };
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let retry_after = retry_after(response.headers(), now);
                Failure::Busy { retry_after }
            }
            StatusCode::REQUEST_TIMEOUT => Failure::Server,
            _ if status.is_server_error() => Failure::Server,
            _ => Failure::Refused,
        };
        Self {
            error: FetchError::Status { url, status: code },
            failure,
        }
    }

    /// What the network said before the answer's head was there.
    pub(crate) fn before_answer(url: &str, proxied: bool, source: reqwest::Error) -> Self {
        let trouble = Trouble::before_answer(&source, proxied);
        Self {
            error: transfer(url, trouble, Some(source)),
            failure: trouble.failure(0),
        }
    }

    /// What the network said in the middle of the answer.
    pub(crate) fn within_answer(url: &str, source: reqwest::Error, received: u64) -> Self {
        Self {
            error: transfer(url, Trouble::Lost, Some(source)),
            failure: Failure::Lost { received },
        }
    }

    /// A redirect that is not followed.
    pub(crate) fn redirect(url: &str, refused: Refused, max: usize) -> Self {
        let url = url.to_owned();
        Self::for_good(match refused {
            Refused::Loop => FetchError::Loop { url },
            Refused::TooMany => FetchError::Redirects { url, max },
            Refused::Nonsense => return Self::garbled(&url),
            Refused::Scheme(target) => FetchError::Scheme {
                scheme: target.scheme().to_owned(),
                url: target.into(),
            },
        })
    }
}

impl From<FetchError> for Failed {
    /// What the disk, or what is done with its bytes, has to say.
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Transfer { trouble, .. } => Self {
                error,
                failure: trouble.failure(0),
            },
            error => Self::for_good(error),
        }
    }
}

fn transfer(url: &str, trouble: Trouble, source: Option<reqwest::Error>) -> FetchError {
    FetchError::Transfer {
        url: url.to_owned(),
        trouble,
        // The address is in our own text already.
        source: source.map(|source| Box::new(source.without_url())),
    }
}

/// How long the server asks to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_for_seconds_or_name_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, want) in [
            ("5", seconds(5)),
            ("0", seconds(0)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", seconds(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", seconds(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), want, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_user_agent_of_any_script_is_sent_and_a_line_break_is_not() {
        assert!(build(&Settings::new("device=a;channel=kanal-ä;build=1")).is_ok());
        assert!(matches!(
            build(&Settings::new("a\r\nb")),
            Err(FetchError::Setup(_))
        ));
    }
}

//! What the engine is asked for a file.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use camino::Utf8PathBuf;
use system_image_fetch::{
    Algorithm, CertificateDer, Digest, FetchError, Fetcher, How, Patience, Request, Settings, Size,
    Throttle,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::job::download::{Download, File};
use crate::job::failure::{Failure, code};
use crate::job::metadata::key;
use crate::job::names::SUFFIX;
use crate::transfer::bring::{Order, Source};
use crate::transfer::local;

/// What the original's HTTP library called itself.
const USER_AGENT: &str = "Mozilla/5.0";

/// Redirects in a row.
const MAX_REDIRECTS: usize = 20;

/// Attempts without progress, and the wait before the second; it doubles.
const PATIENCE: Patience = Patience {
    attempts: 4,
    first_wait: Duration::from_millis(500),
    max_wait: Duration::from_secs(60),
};

/// Proxies for which connections are kept.
const MAX_PROXIES: usize = 8;

/// Makes orders for files.
#[derive(Debug)]
pub struct Engine {
    fetcher: Fetcher,
    proxied: Mutex<HashMap<String, Fetcher>>,
    certificates: Vec<CertificateDer<'static>>,
    limit: Arc<Throttle>,
    language: String,
    transfers: Handle,
}

impl Engine {
    /// An engine that trusts these certificates besides the system's, with a thread for its transfers.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, FetchError> {
        let fetcher = Fetcher::new(settings(&certificates, None))?;
        let language = std::env::var("LANG").unwrap_or_default();
        let language = language.split(['.', '@']).next().unwrap_or_default();
        Ok(Self {
            fetcher,
            proxied: Mutex::default(),
            certificates,
            limit: Arc::new(Throttle::new(0)),
            language: match language {
                "" | "C" | "POSIX" => "*".to_owned(),
                language => format!("{},*", language.replace('_', "-")),
            },
            transfers: transfers().map_err(|error| FetchError::Setup(error.into()))?,
        })
    }

    /// Starts a transfer, on the thread of transfers.
    pub(super) fn start(
        &self,
        transfer: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.transfers.spawn(transfer)
    }

    /// The limit for all downloads together, in bytes per second; 0 for none.
    pub fn limit(&self) -> u64 {
        self.limit.rate()
    }

    /// Sets it.
    pub fn set_limit(&self, bytes_per_second: u64) {
        self.limit.set(bytes_per_second);
    }

    /// What a file of a download needs.
    pub(super) fn order(
        &self,
        download: &Download,
        file: &File,
        limit: &Arc<Throttle>,
        guard: Arc<dyn Any + Send + Sync>,
    ) -> Result<Order, Failure> {
        let metadata = &download.metadata;
        let algorithm = match file.algorithm.as_str() {
            "" => Some(Algorithm::Md5),
            name => name.parse().ok(),
        };
        let algorithm = algorithm.filter(|_| !file.hash.is_empty());
        let digest = algorithm.and_then(|algorithm| Digest::parse(algorithm, &file.hash).ok());
        // A text that is no digest is one that no file has; what it has is told.
        let impossible = algorithm.is_some() && digest.is_none();
        let connections = metadata.number(key::CONNECTIONS).unwrap_or(1);
        let mut headers: Vec<(String, String)> = Vec::new();
        if !download
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("accept-language"))
        {
            headers.push(("Accept-Language".to_owned(), self.language.clone()));
        }
        let given = download.headers.iter();
        headers.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        let request = Request {
            url: file.url.clone(),
            destination: file.stage.clone(),
            size: match file.identity {
                Some(identity) => Size::Exactly(identity.size),
                None => Size::AtMost(i64::MAX.cast_unsigned()),
            },
            digest,
            how: How {
                suffix: SUFFIX,
                headers,
                mirrors: metadata.words(key::MIRRORS).unwrap_or_default(),
                connections: connections
                    .clamp(1, How::MAX_CONNECTIONS.into())
                    .try_into()
                    .unwrap_or(1),
                decompress: metadata.truth(key::DEFLATE),
                empty_answers: true,
                compute: algorithm,
                limits: vec![Arc::clone(limit), Arc::clone(&self.limit)],
                guard: Some(guard),
            },
        };
        Ok(Order {
            source: source(&file.url)?,
            fetcher: self.fetcher(metadata.text(key::PROXY))?,
            request,
            impossible: impossible.then(|| file.hash.clone()),
        })
    }

    fn fetcher(&self, proxy: &str) -> Result<Fetcher, Failure> {
        if proxy.is_empty() {
            return Ok(self.fetcher.clone());
        }
        // Nothing that is done under the lock stops half-way.
        let mut proxied = self.proxied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetcher) = proxied.get(proxy) {
            return Ok(fetcher.clone());
        }
        let fetcher = Fetcher::new(settings(&self.certificates, Some(proxy)))
            .map_err(|error| Failure::network(code::PROXY_NOT_FOUND, error.to_string()))?;
        if proxied.len() >= MAX_PROXIES {
            proxied.clear();
        }
        proxied.insert(proxy.to_owned(), fetcher.clone());
        Ok(fetcher)
    }
}

/// A thread on which transfers run until the process ends: calls do not wait for bytes.
fn transfers() -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("transfers".to_owned());
    thread.spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

fn settings(certificates: &[CertificateDer<'static>], proxy: Option<&str>) -> Settings {
    Settings {
        max_redirects: MAX_REDIRECTS,
        patience: PATIENCE,
        proxy: proxy.map(str::to_owned),
        self_signed: certificates.to_vec(),
        ..Settings::new(USER_AGENT)
    }
}

fn source(url: &str) -> Result<Source, Failure> {
    if let Some(data) = local::data_url(url) {
        let malformed = || Failure::network(code::PROTOCOL, "the data URL is malformed");
        return Ok(Source::Data(
            local::decode(data).ok_or_else(malformed)?.bytes,
        ));
    }
    let parsed = url::Url::parse(url)
        .map_err(|error| Failure::network(code::PROTOCOL, error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(Source::Network),
        "file" => {
            let path: Option<Utf8PathBuf> = local::file_path(&parsed);
            let path = path.ok_or_else(|| Failure::network(code::NOT_FOUND, "no path of a file"));
            Ok(Source::File(path?))
        }
        other => Err(Failure::network(
            code::PROTOCOL,
            format!("Protocol \"{other}\" is unknown"),
        )),
    }
}

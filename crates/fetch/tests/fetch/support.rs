//! What all tests of downloads need.

use std::fs;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use sha2::Digest as _;
use system_image_fetch::{
    Digest, Event, FetchError, Fetched, Fetcher, How, Patience, Received, Request, Settings, Size,
    Trouble,
};
use system_image_formats::checksum::Sha256;
use system_image_testkit::http::Server;
use tempfile::TempDir;

/// Longer than any answer on loopback takes, however busy the machine is.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// Short enough to wait for, where nothing is going to come.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

pub(crate) fn fetcher() -> Fetcher {
    let mut settings = Settings::new("Tester/1");
    settings.stall_timeout = STALL;
    settings.patience = Patience {
        attempts: 3,
        first_wait: Duration::from_millis(1),
        max_wait: Duration::from_millis(5),
    };
    Fetcher::new(settings).unwrap()
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Bytes without a pattern that a wrong offset could hit.
pub(crate) fn content(len: usize, version: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9 ^ version;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    Sha256::from(digest).into()
}

/// A directory for downloads.
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join(name)
    }

    /// A request for a file whose content is known before.
    pub(crate) fn request(&self, server: &Server, body: &[u8]) -> Request {
        Request {
            url: server.url("/file"),
            destination: self.path("file"),
            size: Size::Exactly(body.len() as u64),
            digest: Some(digest(body)),
            how: How::default(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn fetch(request: &Request) -> Result<Fetched, FetchError> {
    run(fetcher().fetch(request, &mut |_| {}))
}

pub(crate) fn trouble(result: Result<Fetched, FetchError>) -> Trouble {
    match result {
        Err(FetchError::Transfer { trouble, .. }) => trouble,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn receive(request: &Request) -> Result<Received, FetchError> {
    run(fetcher().receive(request, &mut |_| {}))
}

/// What another attempt was made for.
pub(crate) fn retries(request: &Request) -> (Result<Received, FetchError>, Vec<String>) {
    let mut told = Vec::new();
    let received = run(fetcher().receive(request, &mut |event| {
        if let Event::Retrying { why, .. } = event {
            told.push(why);
        }
    }));
    (received, told)
}

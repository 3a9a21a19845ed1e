//! Serves the published tree over HTTP: static files with ranges and conditional requests.
//!
//! For a laboratory, a small fleet, or behind a proxy that adds TLS. Any other web server serves
//! the same tree as well.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_serve::{Body, BoxError, ChunkedReadFile};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use system_image_formats::name::TreePath;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that has its port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    www: Arc<Utf8PathBuf>,
}

impl Server {
    /// Binds `listen`; port 0 takes any free one.
    pub async fn bind(www: &Utf8Path, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self {
            listener,
            www: Arc::new(www.to_owned()),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped. Needs tokio's multi-threaded runtime.
    pub async fn run(self) -> Infallible {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots)
                .acquire_owned()
                .await
                .expect("it is never closed");
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the peer is gone already: others must still be served.
                Err(error) => {
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let www = Arc::clone(&self.www);
            tokio::spawn(async move {
                // A connection that breaks is the client's to open again.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), Files { www })
                    .await;
                drop(slot);
            });
        }
    }
}

/// Answers the requests of one connection.
struct Files {
    www: Arc<Utf8PathBuf>,
}

impl Service<Request<Incoming>> for Files {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ready(Ok(tokio::task::block_in_place(|| {
            respond(&self.www, &request)
        })))
    }
}

fn respond(www: &Utf8Path, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(path) = published_path(request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND);
    };
    match open(www, &path) {
        Ok(entity) => http_serve::serve(entity, request),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            plain(StatusCode::FORBIDDEN)
        }
        Err(error) if is_absent(&error) => plain(StatusCode::NOT_FOUND),
        Err(error) => {
            eprintln!("cannot serve {path}: {error}");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The file that a request's path names; `None` for what is no name of a published file: what is
/// still being written, and the directories behind replaced documents.
fn published_path(path: &str) -> Option<TreePath> {
    let path: TreePath = percent_decode_str(path).decode_utf8().ok()?.parse().ok()?;
    let mut parts = path.relative().split('/');
    let hidden = parts.any(|part| part.starts_with('.') || part.strip_suffix(".new").is_some());
    (!hidden).then_some(path)
}

fn open(www: &Utf8Path, path: &TreePath) -> io::Result<ChunkedReadFile<Bytes, BoxError>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(
        CWD,
        www.as_std_path(),
        flags | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    // Links within the tree are ours; one that leads out of it is not followed.
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(
        &directory,
        path.relative(),
        flags | OFlags::NONBLOCK,
        Mode::empty(),
        beneath,
    )?;
    let file = std::fs::File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    ChunkedReadFile::new(file, headers(path))
}

fn headers(path: &TreePath) -> HeaderMap {
    let name = path.relative();
    let (kind, changes) = match name.rsplit('.').next() {
        Some("json") => ("application/json", true),
        Some("asc") => ("application/pgp-signature", true),
        Some("xz") => ("application/x-xz", name.starts_with("gpg/")),
        _ => ("application/octet-stream", false),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if changes {
        // Documents and signatures change under their name (server spec, section 19.3).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    headers
}

fn is_absent(error: &io::Error) -> bool {
    let escapes = error.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error());
    escapes
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_names_are_served() {
        let served = |path| published_path(path).map(|path| path.relative().to_owned());
        assert_eq!(
            served("/24.04/stable/d/index.json").unwrap(),
            "24.04/stable/d/index.json"
        );
        assert_eq!(served("/kanal-%C3%A4/x").unwrap(), "kanal-ä/x");
        for path in [
            "/",
            "/a/",
            "/../secret",
            "/a/%2e%2e/b",
            "/a%2f..%2fb",
            "/.index.json/now/index.json",
            "/a/index.json.new",
            "/a%00b",
            "/%ff",
        ] {
            assert_eq!(served(path), None, "{path}");
        }
    }
}

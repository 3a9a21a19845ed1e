//! From a request to its answer: a file of the tree, or why not.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use camino::Utf8PathBuf;
use futures_util::{Stream, stream};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RANGE, VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_serve::{BoxError, Entity};
use hyper::body::{Body, Buf, Bytes, Frame, Incoming, SizeHint};
use jiff::Timestamp;

use super::body::{FileBytes, Piece};
use super::compressed::Compressed;
use super::files::{Directory, Identity, Published, is_absent, published_path};
use super::kind::Kind;
use super::log::{Line, Log};
use super::metrics::Metrics;
use super::pair::LastPair;
use super::wire::Holes;

/// Longest path of a request in bytes: every byte of the longest name (1024) as `%xx`, and a
/// query that nobody needs.
const MAX_PATH: usize = 4096;

type FileBody = http_serve::Body<Piece, BoxError>;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) www: Utf8PathBuf,
    pub(super) compressed: Compressed,
    pub(super) metrics: Metrics,
    pub(super) log: Option<Log>,
}

/// One connection: who it is from, and what it has been given.
#[derive(Debug)]
pub(super) struct Visitor {
    site: Arc<Site>,
    address: IpAddr,
    /// Opened once for each connection, which saves a system call for each request, and lets a
    /// tree be moved into the place of another one.
    tree: io::Result<Directory>,
    last_pair: LastPair,
    /// On a connection that can be sent files from the kernel.
    holes: Option<Holes>,
}

impl Visitor {
    pub(super) fn new(site: Arc<Site>, address: IpAddr, holes: Option<Holes>) -> Self {
        Self {
            address,
            tree: Directory::open(&site.www),
            last_pair: LastPair::default(),
            holes,
            site,
        }
    }

    /// Answers, and counts and logs the answer once it is sent.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Recorded> {
        let started = Instant::now();
        let log = self.site.log.is_some();
        let line = log.then(|| Line::new(self.address, Timestamp::now(), &request));
        let (kind, response) = self.respond(request).await;
        let record = Record {
            site: Arc::clone(&self.site),
            kind,
            status: response.status(),
            bytes: 0,
            started,
            line,
        };
        response.map(|body| Recorded { body, record })
    }

    async fn respond(&self, request: Request<Incoming>) -> (Kind, Response<FileBody>) {
        // The body of a request, if there is one, is nothing to us.
        let request = request.map(drop);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return (Kind::Nothing, response);
        }
        let text = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        if text.len() > MAX_PATH {
            return (Kind::Nothing, plain(StatusCode::URI_TOO_LONG));
        }
        let Some(path) = published_path(request.uri().path()) else {
            return (Kind::Nothing, plain(StatusCode::NOT_FOUND));
        };
        let kind = Kind::of(&path);
        let found = async {
            let tree = self.tree.as_ref().map_err(copy)?;
            let published = self.last_pair.open(tree, &path).await?;
            self.representation(published, kind, &request).await
        };
        match found.await {
            Ok(representation) => {
                let mut response = http_serve::serve(representation, &request);
                let headers = response.headers_mut();
                headers.insert(CACHE_CONTROL, kind.cache_control(&path));
                if kind == Kind::Document {
                    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
                }
                (kind, response)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (kind, plain(StatusCode::FORBIDDEN))
            }
            Err(error) if is_absent(&error) => (Kind::Nothing, plain(StatusCode::NOT_FOUND)),
            Err(error) => {
                eprintln!("cannot serve {path}: {error}");
                (kind, plain(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }

    async fn representation(
        &self,
        published: Published,
        kind: Kind,
        request: &Request<()>,
    ) -> io::Result<Representation> {
        let identity = published.identity;
        let headers = request.headers();
        // A part is always one of the plain document: whoever resumes verifies those bytes.
        let compressed = http_serve::should_gzip(headers) && !headers.contains_key(RANGE);
        if kind == Kind::Document && compressed {
            let copy = Published {
                file: published.file.try_clone()?,
                identity,
            };
            if let Some(content) = self.site.compressed.gzip(copy).await? {
                return Ok(Representation {
                    content: Content::Gzip(content),
                    identity,
                    kind,
                });
            }
        }
        let over_http1 = request.version() < Version::HTTP_2;
        Ok(Representation {
            content: Content::File {
                file: Arc::new(published.file),
                holes: self.holes.clone().filter(|_| over_http1),
            },
            identity,
            kind,
        })
    }
}

/// A file as it is sent: plain or compressed.
struct Representation {
    content: Content,
    identity: Identity,
    kind: Kind,
}

enum Content {
    File {
        file: Arc<File>,
        holes: Option<Holes>,
    },
    Gzip(Bytes),
}

impl Entity for Representation {
    type Error = BoxError;
    type Data = Piece;

    fn len(&self) -> u64 {
        match &self.content {
            Content::File { .. } => self.identity.len,
            Content::Gzip(bytes) => bytes.len() as u64,
        }
    }

    fn get_range(
        &self,
        range: Range<u64>,
    ) -> Pin<Box<dyn Stream<Item = Result<Piece, BoxError>> + Send + Sync>> {
        match &self.content {
            Content::File { file, holes } => {
                Box::pin(FileBytes::new(Arc::clone(file), range, holes.clone()))
            }
            Content::Gzip(bytes) => {
                let at = |at: u64| usize::try_from(at).expect("it is in memory");
                let part = bytes.slice(at(range.start)..at(range.end));
                Box::pin(stream::iter([Ok(Piece::Bytes(part))]))
            }
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, self.kind.content_type());
        if let Content::Gzip(_) = self.content {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }

    fn etag(&self) -> Option<HeaderValue> {
        let suffix = match self.content {
            Content::File { .. } => "",
            Content::Gzip(_) => "-gzip",
        };
        HeaderValue::try_from(self.identity.tag(suffix)).ok()
    }

    fn last_modified(&self) -> Option<SystemTime> {
        Some(self.identity.modified())
    }
}

/// An answer that is counted and logged when it is dropped: sent, or given up.
#[derive(Debug)]
pub(super) struct Record {
    site: Arc<Site>,
    kind: Kind,
    status: StatusCode,
    /// Handed to the connection; a client that goes away may have taken some fewer.
    bytes: u64,
    started: Instant,
    line: Option<Line>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let site = &self.site;
        site.metrics
            .answered(self.kind, self.status, self.bytes, took);
        if let (Some(log), Some(line)) = (&site.log, self.line.take())
            && !log.line(line.finish(self.status, self.bytes, took))
        {
            site.metrics.log_lost();
        }
    }
}

/// A body with its record.
pub(super) struct Recorded {
    body: FileBody,
    record: Record,
}

impl Body for Recorded {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, Buf::remaining);
                self.record.bytes += len as u64;
            }
            Poll::Ready(Some(Err(error))) => eprintln!("cannot read on: {error}"),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that is no file. Nobody may keep it: what is absent now may be published next, the
/// blacklist above all.
fn plain(status: StatusCode) -> Response<FileBody> {
    let mut response = Response::new(http_serve::Body::from(format!("{status}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

//! One connection, from its first byte to its last: HTTP/1.1 or HTTP/2, whichever the client
//! begins with.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response, Version};
use http_serve::BoxError;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::pulse::{Overdue, Patience};
use super::wire::Heart;

/// Longest head of a request in bytes: our clients send a tenth. The library takes at most 100
/// fields.
const MAX_HEAD: u16 = 16 << 10;

/// Requests that one connection of HTTP/2 may have open.
const MAX_STREAMS: u32 = 64;

/// Answers requests until the client leaves, is overdue, or the server stops; then what is under
/// way is finished first. Says why if the server ended it.
pub(super) async fn serve<I, F, A, B>(
    io: I,
    heart: Heart,
    patience: &Patience,
    mut stop: watch::Receiver<bool>,
    answer: F,
) -> Option<Overdue>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let busy = Busy::new(heart.clone(), request.version());
        let answer = answer(request);
        async move {
            let response = answer.await;
            Ok::<_, Infallible>(response.map(|body| Held { body, _busy: busy }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(MAX_HEAD.into())
        // Time is kept here, for both protocols alike.
        .header_read_timeout(None);
    builder
        .http2()
        .max_header_list_size(MAX_HEAD.into())
        .max_concurrent_streams(MAX_STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut look = pin!(tokio::time::sleep(patience.shortest()));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // A connection that breaks is the client's to open again.
            _ = connection.as_mut() => return None,
            () = look.as_mut() => {
                let now = Instant::now();
                let (deadline, why) = heart.lock().deadline(patience);
                if deadline <= now {
                    return Some(why);
                }
                look.as_mut().reset(deadline.min(now + patience.shortest()).into());
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct Busy(Heart);

impl Busy {
    fn new(heart: Heart, version: Version) -> Self {
        heart.lock().began(Instant::now(), version);
        Self(heart)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().ended();
    }
}

/// A body whose request is being answered until it is dropped.
struct Held<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

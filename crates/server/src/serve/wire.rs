//! A client's socket, which can be told to send from a file.
//!
//! The HTTP library writes slices of memory. A slice of [`HOLE`] stands for bytes of a file: the
//! body that yields it says which ones in [`Holes`], and here they go from the page cache to the
//! socket (`sendfile`) without passing through this process. Only HTTP/1 without TLS is given
//! holes, since nothing may look at the bytes of one in between.
//!
//! Measured with one thread, 64 MiB files and `wrk` over the loopback: 0.23 s of processor time per
//! GB, and 0.51 s when files are read into buffers of 64 KiB and written from there. There the
//! reader is the limit, and is even slower by a quarter, because it is the first to touch the
//! pages; over a network nobody is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::fs::sendfile;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pulse::Pulse;

/// Never read, only recognised by its address; so it takes no memory.
static HOLE: [u8; MAX_HOLE] = [0; MAX_HOLE];

/// Most bytes of a file that one slice stands for.
pub(super) const MAX_HOLE: usize = 1 << 20;

/// A slice that stands for `len` bytes of a file, or for [`MAX_HOLE`] if those are fewer.
pub(super) fn hole(len: usize) -> &'static [u8] {
    &HOLE[..len.min(MAX_HOLE)]
}

fn is_hole(slice: &[u8]) -> bool {
    std::ptr::eq(slice.as_ptr(), HOLE.as_ptr())
}

/// What the holes of one connection stand for, in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Holes(Arc<Mutex<VecDeque<Source>>>);

#[derive(Debug)]
struct Source {
    file: Arc<File>,
    at: u64,
    left: usize,
}

impl Holes {
    /// The next hole of `len` bytes is filled from `at` in this file.
    pub(super) fn push(&self, file: Arc<File>, at: u64, len: usize) {
        self.lock().push_back(Source {
            file,
            at,
            left: len,
        });
    }

    /// Sends at most `len` bytes to the socket.
    fn send(&self, socket: &TcpStream, len: usize) -> io::Result<usize> {
        let mut sources = self.lock();
        let Some(source) = sources.front_mut() else {
            return Err(io::Error::other("a hole without a file"));
        };
        let mut at = source.at;
        let sent = sendfile(socket, &source.file, Some(&mut at), len.min(source.left))?;
        if sent == 0 {
            // The file has become shorter since its length was promised.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        source.at = at;
        source.left -= sent;
        if source.left == 0 {
            sources.pop_front();
        }
        Ok(sent)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection's parts share to tell each other that it lives.
#[derive(Clone, Debug)]
pub(super) struct Heart(Arc<Mutex<Pulse>>);

impl Heart {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Pulse::new(Instant::now()))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pulse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    heart: Heart,
    holes: Holes,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, heart: Heart) -> Self {
        Self {
            socket,
            heart,
            holes: Holes::default(),
        }
    }

    /// Where bodies say what their holes stand for.
    pub(super) fn holes(&self) -> Holes {
        self.holes.clone()
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(_) => self.heart.lock().sent(Instant::now()),
            Poll::Pending => self.heart.lock().blocked(),
        }
    }

    fn poll_hole(&self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let fill = || self.holes.send(&self.socket, len);
            match self.socket.try_io(Interest::WRITABLE, fill) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heart.lock().received(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match slices.iter().position(|slice| is_hole(slice)) {
            Some(0) => self.poll_hole(cx, slices[0].len()),
            Some(first) => Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..first]),
            None if slices.len() == 1 => Pin::new(&mut self.socket).poll_write(cx, &slices[0]),
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, slices),
        };
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

//! The bytes of an answer, window by window.
//!
//! Nothing that serves waits for a disk: what is in the page cache is taken from there at once,
//! and the rest is read on threads of its own. A file system that cannot tell the two apart
//! (tmpfs, overlayfs on some kernels) is read in place.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use http_serve::BoxError;
use hyper::body::{Buf, Bytes};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use super::wire::{Holes, MAX_HOLE, hole};

/// Bytes read at a time. The allocator serves more than twice as much from fresh pages each time,
/// which costs more than the calls that are saved.
const BUFFER: u64 = 64 << 10;

/// What a connection is given to write.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// As many bytes of a file, see [`wire`](super::wire).
    Hole(usize),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&'static [u8]> for Piece {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Hole(left) => *left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Hole(left) => hole(*left),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Hole(left) => *left -= count,
        }
    }
}

/// Bytes of a file, as a stream of pieces.
#[derive(Debug)]
pub(super) struct FileBytes {
    file: Arc<File>,
    left: Range<u64>,
    /// `None` if the bytes have to pass through this process.
    holes: Option<Holes>,
    waiting: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FileBytes {
    /// These bytes of the file. A few are not worth a system call of their own: they go with the
    /// answer's head.
    pub(super) fn new(file: Arc<File>, range: Range<u64>, holes: Option<Holes>) -> Self {
        let holes = holes.filter(|_| range.end - range.start > BUFFER);
        Self {
            file,
            left: range,
            holes,
            waiting: None,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Piece>> {
        let most = self.holes.as_ref().map_or(BUFFER, |_| MAX_HOLE as u64);
        let len = (self.left.end - self.left.start).min(most);
        let len = usize::try_from(len).expect("it is at most the largest hole");
        let (file, at) = (Arc::clone(&self.file), self.left.start);
        let read = if let Some(waiting) = &mut self.waiting {
            let read = ready!(Pin::new(waiting).poll(cx));
            self.waiting = None;
            read.map_err(io::Error::other)??
        } else if let Some(read) = self.at_once(len) {
            read?
        } else {
            // For a hole this only brings the window into the page cache.
            self.waiting = Some(spawn_blocking(move || read_window(&file, at, len)));
            return self.next(cx);
        };
        let (len, piece) = match &self.holes {
            Some(holes) => {
                holes.push(file, at, len);
                (len, Piece::Hole(len))
            }
            // The file has become shorter since its length was promised.
            None if read.is_empty() => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            None => (read.len(), read.into()),
        };
        self.left.start += len as u64;
        Poll::Ready(Ok(piece))
    }

    /// What is needed of the next window, without waiting for a disk: of a hole nothing, if both
    /// of its ends are in the page cache. The kernel reads ahead, and forgets, many pages at once.
    fn at_once(&self, len: usize) -> Option<io::Result<Vec<u8>>> {
        let first = self.left.start;
        if self.holes.is_none() {
            return read_cached(&self.file, first, len);
        }
        let last = first + (len as u64).saturating_sub(1);
        let mut ends = [first, last].into_iter();
        let cached = ends.all(|at| read_cached(&self.file, at, 1).is_some());
        cached.then(|| Ok(Vec::new()))
    }
}

impl Stream for FileBytes {
    type Item = Result<Piece, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        self.next(cx).map(|piece| Some(piece.map_err(Into::into)))
    }
}

/// Reads what is in the page cache of a window; `None` if the disk would have to be waited for.
fn read_cached(file: &File, at: u64, len: usize) -> Option<io::Result<Vec<u8>>> {
    let mut buffer = vec![0; len];
    let now = ReadWriteFlags::NOWAIT;
    match preadv2(file, &mut [IoSliceMut::new(&mut buffer)], at, now) {
        Ok(read) => buffer.truncate(read),
        Err(Errno::AGAIN) => return None,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Some(read_window(file, at, len)),
        Err(error) => return Some(Err(error.into())),
    }
    Some(Ok(buffer))
}

fn read_window(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, at)?;
    Ok(buffer)
}

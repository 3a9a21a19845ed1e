//! The threads that pack jobs, and what they hand back in the order of the jobs. What is on its way to
//! them and back is bounded, so that memory does not depend on who is faster.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::job::Packer;
use super::library::Library;
use crate::patch::codec::CodecError;

/// What a thread is told.
pub(super) enum Order {
    /// A job begins.
    Begin {
        /// Its number.
        job: u64,
        /// The pieces at whose end stands what comes before, and how much of them that is.
        before: (Vec<Arc<[u8]>>, usize),
        /// How long the frame is for the first job, else the job.
        pledged: u64,
    },
    /// Its content goes on.
    Content(Arc<[u8]>),
    /// It ends, and the frame with it if it is the last one.
    End { is_last: bool },
}

/// What has come of a job.
#[derive(Default)]
struct Made {
    pieces: VecDeque<Vec<u8>>,
    is_complete: bool,
}

struct State {
    /// How many more bytes may be on their way.
    left: i64,
    /// Of the jobs from the first one on that was not taken to its end.
    made: VecDeque<Made>,
    /// The number of that job.
    first: u64,
    failed: Option<CodecError>,
    /// Whether a thread has ended: it does so only when nobody waits for it.
    is_over: bool,
}

/// How much that was packed is handed out at once, in bytes, unless there is no room otherwise: what
/// waits behind a job is not to be gathered once more.
const OUT: usize = 256 << 10;

fn of(len: usize) -> i64 {
    i64::try_from(len).expect("it fits into memory")
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread has packed something of a job, or failed.
    fn hand_back(
        &self,
        job: u64,
        took: usize,
        made: Result<Vec<u8>, CodecError>,
        is_complete: bool,
    ) {
        let mut state = self.lock();
        state.left += of(took);
        match made {
            Ok(bytes) => {
                state.left -= of(bytes.len());
                let at = usize::try_from(job - state.first).expect("jobs are few");
                let made = &mut state.made[at];
                if !bytes.is_empty() {
                    made.pieces.push_back(bytes);
                }
                made.is_complete = is_complete;
            }
            Err(error) => state.failed = Some(error),
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Tells that a thread has ended, even if that is for a panic.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// The threads.
pub(super) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<(Sender<Order>, JoinHandle<()>)>,
}

impl Crew {
    /// A thread for each packer; `room` bytes may be on their way.
    pub(super) fn new<L: Library>(
        packers: Vec<Packer<L>>,
        room: usize,
    ) -> Result<Self, CodecError> {
        let state = State {
            left: of(room),
            made: VecDeque::new(),
            first: 0,
            failed: None,
            is_over: false,
        };
        let mut crew = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for packer in packers {
            let (sender, orders) = mpsc::channel();
            let over = Over(Arc::clone(&crew.shared));
            let run = move || work(packer, &orders, &over);
            let thread = thread::Builder::new().spawn(run);
            let thread = thread.map_err(|_| CodecError::Pack("no thread"))?;
            crew.threads.push((sender, thread));
        }
        Ok(crew)
    }

    /// Begins a job behind the others.
    pub(super) fn begin(&self, job: u64, before: (Vec<Arc<[u8]>>, usize), pledged: u64) {
        self.shared.lock().made.push_back(Made::default());
        self.order(
            job,
            Order::Begin {
                job,
                before,
                pledged,
            },
        );
    }

    /// Gives a job more content, when there is room for it; meanwhile what was packed is appended to
    /// `out`.
    pub(super) fn content(
        &self,
        job: u64,
        bytes: Arc<[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let len = of(bytes.len());
        self.wait(out, |state, _| state.left >= len)?.left -= len;
        self.order(job, Order::Content(bytes));
        Ok(())
    }

    /// Ends a job.
    pub(super) fn end(&self, job: u64, is_last: bool) {
        self.order(job, Order::End { is_last });
    }

    /// Appends to `out` some of what is not there yet, when there is some; whether that was all.
    pub(super) fn rest(&self, out: &mut Vec<u8>) -> Result<bool, CodecError> {
        let state = self.wait(out, |state, made| made > 0 || state.made.is_empty())?;
        Ok(state.made.is_empty())
    }

    fn order(&self, job: u64, order: Order) {
        let at = job % self.threads.len() as u64;
        let (orders, _) = &self.threads[usize::try_from(at).expect("threads are few")];
        // One that has ended is found out when it is waited for.
        let _ = orders.send(order);
    }

    /// Waits for something, of which it may matter how much was appended to `out`, and takes what was
    /// packed meanwhile.
    fn wait(
        &self,
        out: &mut Vec<u8>,
        is_there: impl Fn(&State, usize) -> bool,
    ) -> Result<MutexGuard<'_, State>, CodecError> {
        let before = out.len();
        let mut most = before + OUT;
        let mut state = self.shared.lock();
        loop {
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            let has_more = state.take(out, most);
            if is_there(&state, out.len() - before) {
                return Ok(state);
            }
            if has_more {
                most += OUT;
                continue;
            }
            if state.is_over {
                return Err(CodecError::Pack("a thread of zstd has ended"));
            }
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Takes what was packed of the first job that is not complete, and of those before, until `out` has
    /// `most` bytes; whether there is more.
    fn take(&mut self, out: &mut Vec<u8>, most: usize) -> bool {
        while let Some(made) = self.made.front_mut() {
            while out.len() < most
                && let Some(piece) = made.pieces.pop_front()
            {
                self.left += of(piece.len());
                out.extend_from_slice(&piece);
            }
            if !made.pieces.is_empty() {
                return true;
            }
            if !made.is_complete {
                break;
            }
            self.made.pop_front();
            self.first += 1;
        }
        false
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (orders, thread) in self.threads.drain(..) {
            drop(orders);
            // One that panicked has told so.
            let _ = thread.join();
        }
    }
}

fn work<L: Library>(mut packer: Packer<L>, orders: &Receiver<Order>, over: &Over) {
    let Over(shared) = over;
    let mut current = 0;
    for order in orders {
        let mut out = Vec::new();
        let (mut took, mut is_complete) = (0, false);
        let done = match order {
            Order::Begin {
                job,
                before: (pieces, len),
                pledged,
            } => {
                current = job;
                let all: usize = pieces.iter().map(|piece| piece.len()).sum();
                let mut left_out = all - len;
                let before = pieces.iter().map(|piece| {
                    let from = left_out.min(piece.len());
                    left_out -= from;
                    &piece[from..]
                });
                packer.begin(before, job == 0, pledged, &mut out)
            }
            Order::Content(bytes) => {
                took = bytes.len();
                packer.push(&bytes, &mut out)
            }
            Order::End { is_last } => {
                is_complete = true;
                packer.end(is_last, &mut out)
            }
        };
        let has_failed = done.is_err();
        shared.hand_back(current, took, done.map(|()| out), is_complete);
        if has_failed {
            break;
        }
    }
}

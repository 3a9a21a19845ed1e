//! The sink of a download, on blocking threads: while one batch is written and hashed, the next
//! comes in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::batch::Batch;
use crate::error::FetchError;
use crate::request::Request;
use crate::sink::Sink;

#[derive(Debug)]
pub(crate) struct Disk {
    sink: Arc<Mutex<Sink>>,
    writing: Option<JoinHandle<Result<u64, FetchError>>>,
    written: u64,
}

impl Disk {
    /// Opens the sink of a request, whose file may come from one of `sources`.
    ///
    /// Dropped meanwhile, it lets go of the part soon, so that it can be opened again.
    pub(crate) async fn open(request: &Request, sources: &[String]) -> Result<Self, FetchError> {
        let (request, sources) = (request.clone(), sources.to_vec());
        let stop = StopOnDrop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let sink = blocking(move || Sink::open(&request, &sources, &stopped)).await?;
        Ok(Self {
            sink: Arc::new(Mutex::new(sink)),
            writing: None,
            written: 0,
        })
    }

    /// Has the sink do something when all before it is done.
    pub(crate) async fn run<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut Sink) -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, FetchError> {
        self.settle().await?;
        let sink = Arc::clone(&self.sink);
        blocking(move || f(&mut lock(&sink))).await
    }

    /// Begins to append a batch when the one before it is there.
    pub(crate) async fn write(&mut self, batch: Batch) -> Result<(), FetchError> {
        self.settle().await?;
        if batch.is_empty() {
            return Ok(());
        }
        let sink = Arc::clone(&self.sink);
        self.writing = Some(spawn_blocking(move || {
            let mut locked = lock(&sink);
            locked.write(&batch)?;
            if let Some(due) = locked.due() {
                let sink = Arc::downgrade(&sink);
                // Whatever the disk is slow at, the network does not wait for it.
                Handle::current().spawn_blocking(move || {
                    let done = due.sync().is_ok();
                    let sink = sink.upgrade();
                    // What could not be noted is not relied on.
                    let _ = sink.map(|sink| lock(&sink).synced(&due, done));
                });
            }
            Ok(locked.len())
        }));
        Ok(())
    }

    /// Has a last batch written although nobody waits any more.
    pub(crate) fn leave(&mut self, batch: Batch) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if batch.is_empty() {
            return;
        }
        let (sink, writing) = (Arc::clone(&self.sink), self.writing.take());
        runtime.spawn(async move {
            // After a hole nothing more is written.
            let whole = match writing {
                Some(writing) => matches!(writing.await, Ok(Ok(_))),
                None => true,
            };
            if whole {
                // What is not there then is fetched again.
                let written = spawn_blocking(move || lock(&sink).write(&batch));
                drop(written.await);
            }
        });
    }

    /// Waits until all is written.
    pub(crate) async fn settle(&mut self) -> Result<(), FetchError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let written = finished(writing.await).await;
        self.writing = None;
        self.written = written?;
        Ok(())
    }

    /// The file's length when it was last looked at after a write.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

/// Tells a thread that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    // A panic in a sink has ended the download that it belonged to.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    finished(spawn_blocking(f).await).await
}

async fn finished<T>(done: Result<T, tokio::task::JoinError>) -> T {
    match done {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and this future will not be polled again.
            Err(_) => std::future::pending().await,
        },
    }
}

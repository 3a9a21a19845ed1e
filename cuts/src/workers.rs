//! Work for several threads, each with mounts and devices of its own.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use anyhow::anyhow;

use crate::device::{Device, Layout};
use crate::lab::{Lab, is_root, isolate};

/// What one thread has for itself.
pub(crate) struct Worker<'l> {
    pub(crate) lab: &'l Lab,
    place: PathBuf,
    devices: HashMap<&'static str, Device>,
}

impl Worker<'_> {
    /// Its device of a kind.
    pub(crate) fn device(&mut self, layout: Layout) -> &Device {
        let place = self.place.join(layout.name());
        self.devices
            .entry(layout.name())
            .or_insert_with(|| Device::new(self.lab, layout, &place))
    }
}

/// Does `work` for each item on `jobs` threads. `done` is told of each result in the calling
/// thread, as they come, until somebody wants this to end. A fixture's panic is an error.
pub(crate) fn spread<T: Sync, R: Send>(
    lab: &Lab,
    jobs: usize,
    items: &[T],
    work: impl Fn(&mut Worker<'_>, &T) -> anyhow::Result<R> + Sync,
    mut done: impl FnMut(&T, anyhow::Result<R>),
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, results) = channel();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for job in 0..jobs.min(items.len()) {
            let (next, work, sender) = (&next, &work, sender.clone());
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                if is_root() {
                    isolate()?;
                }
                let mut worker = Worker {
                    lab,
                    place: lab.place(&format!("worker-{job}")),
                    devices: HashMap::new(),
                };
                while !Lab::is_stopped() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { break };
                    let caught = catch_unwind(AssertUnwindSafe(|| work(&mut worker, item)));
                    let result = caught.unwrap_or_else(|panic| Err(anyhow!(words(&*panic))));
                    // A program that got the same signal says nothing of the upgrader.
                    if Lab::is_stopped() || sender.send((item, result)).is_err() {
                        break;
                    }
                }
                Ok(())
            }));
        }
        drop(sender);
        for (item, result) in results {
            done(item, result);
        }
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| Err(anyhow!(words(&*panic))))
        })
    })
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("something failed").to_owned()
}

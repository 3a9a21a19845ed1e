//! Work on several threads whose results come in order, so that the number of threads changes
//! nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` for each item, begun in order, on `threads` threads.
pub(crate) fn map<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    let result = work(item);
                    *results[at].lock().expect("nobody panics with it") = Some(result);
                }
            });
        }
    });
    let results = results.into_iter().map(|result| {
        let result = result.into_inner().expect("nobody panics with it");
        result.expect("every item was worked on")
    });
    results.collect()
}

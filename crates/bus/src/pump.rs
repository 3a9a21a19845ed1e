//! Takes messages off the connection as they come.
//!
//! A stream of messages that nobody reads fills up and then holds up its whole connection, answers
//! to calls included. So no caller ever holds such a stream: a task reads it and keeps what matters.

use tokio::task::JoinHandle;

/// A task that ends with the value.
#[derive(Debug)]
pub(crate) struct Pump(JoinHandle<()>);

impl Pump {
    /// Starts it.
    pub(crate) fn start(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

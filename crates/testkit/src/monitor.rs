//! Listens to what a service says, with `GLib`'s monitor: another implementation than ours, so that what
//! is on the wire is proven from outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::Bus;

/// Longer than anything takes that a test waits for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a service says, from now on. Ends with the value.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Listens to whoever owns a name, now or later.
    pub fn of(bus: &Bus, name: &str) -> Self {
        let mut monitor = bus.program("gdbus");
        monitor.args(["monitor", "--system", "--dest", name]);
        let mut child = monitor.stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // It listens once it says so.
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        assert!(first.starts_with("Monitoring"), "{first}");
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line, such as `/path: interface.Signal (arguments)`.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("no signal came")
    }

    /// The next signal of an object's interface, as `Name (arguments)`.
    pub fn signal(&self, path: &str, interface: &str) -> String {
        let start = format!("{path}: {interface}.");
        loop {
            if let Some(signal) = self.line().strip_prefix(&start) {
                return signal.to_owned();
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

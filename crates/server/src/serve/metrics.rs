//! Counts what is served, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::kind::Kind;
use super::pulse::Overdue;

/// Statuses that are counted apart; any other counts as the last one.
const STATUSES: [u16; 13] = [
    200, 206, 304, 400, 403, 404, 405, 412, 413, 414, 416, 503, 500,
];

/// Upper bounds of the histogram's buckets in milliseconds, from a document out of the page cache
/// to an image over a mobile link.
const BUCKETS: [u64; 12] = [
    1, 5, 25, 100, 500, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000,
];

/// Why a connection was refused or ended by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Its address has too many.
    PerAddress,
    /// No TLS was agreed on.
    Handshake,
    /// It made others wait.
    Overdue(Overdue),
}

const DROPPED: [(Dropped, &str); 5] = [
    (Dropped::PerAddress, "per_address"),
    (Dropped::Handshake, "handshake"),
    (Dropped::Overdue(Overdue::Head), "slow_head"),
    (Dropped::Overdue(Overdue::Idle), "idle"),
    (Dropped::Overdue(Overdue::Stalled), "slow_reader"),
];

/// All counters of a server. They only grow, except for connections that are open.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: [[AtomicU64; STATUSES.len()]; Kind::ALL.len()],
    bytes: [AtomicU64; Kind::ALL.len()],
    /// Of [`BUCKETS`], and of what took longer.
    durations: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
    accepted: AtomicU64,
    closed: AtomicU64,
    dropped: [AtomicU64; DROPPED.len()],
    log_lost: AtomicU64,
}

fn add(counter: &AtomicU64, number: u64) {
    // Nothing is decided by these numbers, so their order does not matter.
    counter.fetch_add(number, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    pub(super) fn answered(&self, kind: Kind, status: StatusCode, bytes: u64, took: Duration) {
        let known = STATUSES.iter().position(|known| *known == status.as_u16());
        let status = known.unwrap_or(STATUSES.len() - 1);
        add(&self.requests[kind as usize][status], 1);
        add(&self.bytes[kind as usize], bytes);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| took <= bound * 1000);
        add(&self.durations[bucket.unwrap_or(BUCKETS.len())], 1);
        add(&self.microseconds, took);
    }

    pub(super) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(super) fn closed(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn dropped(&self, why: Dropped) {
        if let Some(at) = DROPPED.iter().position(|(known, _)| *known == why) {
            add(&self.dropped[at], 1);
        }
    }

    /// A line of the access log could not be kept.
    pub(super) fn log_lost(&self) {
        add(&self.log_lost, 1);
    }

    /// Everything, as `text/plain; version=0.0.4`.
    pub(super) fn text(&self) -> String {
        let mut text = Text(String::new());
        text.head("requests_total", "counter", "Requests answered");
        for (kind, statuses) in Kind::ALL.iter().zip(&self.requests) {
            for (status, counter) in STATUSES.iter().zip(statuses) {
                // What never happened would be most of the lines.
                if get(counter) > 0 {
                    let labels = format!("kind=\"{}\",status=\"{status}\"", kind.label());
                    text.line("requests_total", &labels, get(counter));
                }
            }
        }
        text.head("sent_bytes_total", "counter", "Bytes of answers' bodies");
        for (kind, counter) in Kind::ALL.iter().zip(&self.bytes) {
            let labels = format!("kind=\"{}\"", kind.label());
            text.line("sent_bytes_total", &labels, get(counter));
        }
        self.durations(&mut text);
        let (accepted, closed) = (get(&self.accepted), get(&self.closed));
        text.head("connections_total", "counter", "Connections accepted");
        text.line("connections_total", "", accepted);
        text.head("connections", "gauge", "Connections that are open");
        text.line("connections", "", accepted.saturating_sub(closed));
        text.head(
            "connections_dropped_total",
            "counter",
            "Connections refused or ended by the server",
        );
        for ((_, why), counter) in DROPPED.iter().zip(&self.dropped) {
            let labels = format!("reason=\"{why}\"");
            text.line("connections_dropped_total", &labels, get(counter));
        }
        text.head(
            "log_lines_lost_total",
            "counter",
            "Lines of the access log that could not be written",
        );
        text.line("log_lines_lost_total", "", get(&self.log_lost));
        text.0
    }

    fn durations(&self, text: &mut Text) {
        let name = "request_duration_seconds";
        text.head(
            name,
            "histogram",
            "From a request's head to its answer's end",
        );
        let mut below = 0;
        for (bound, counter) in BUCKETS.iter().zip(&self.durations) {
            below += get(counter);
            let labels = format!("le=\"{}\"", *bound as f64 / 1000.0);
            text.line(&format!("{name}_bucket"), &labels, below);
        }
        below += get(&self.durations[BUCKETS.len()]);
        text.line(&format!("{name}_bucket"), "le=\"+Inf\"", below);
        let seconds = get(&self.microseconds) as f64 / 1e6;
        text.line(&format!("{name}_sum"), "", seconds);
        text.line(&format!("{name}_count"), "", below);
    }
}

/// The text while it is written.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let name = format!("system_image_serve_{name}");
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        writeln!(self.0, "system_image_serve_{name}{braced} {value}").expect("memory takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::default();
        let second = Duration::from_secs(1);
        metrics.answered(Kind::Document, StatusCode::OK, 10, second);
        metrics.answered(Kind::Document, StatusCode::OK, 20, second * 2);
        metrics.answered(Kind::Nothing, StatusCode::NOT_FOUND, 5, second * 9999);
        metrics.accepted();
        metrics.dropped(Dropped::Overdue(Overdue::Stalled));
        let text = metrics.text();
        for line in [
            "requests_total{kind=\"document\",status=\"200\"} 2",
            "requests_total{kind=\"nothing\",status=\"404\"} 1",
            "sent_bytes_total{kind=\"document\"} 30",
            "request_duration_seconds_bucket{le=\"0.5\"} 0",
            "request_duration_seconds_bucket{le=\"1\"} 1",
            "request_duration_seconds_bucket{le=\"5\"} 2",
            "request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "request_duration_seconds_sum 10002",
            "connections 1",
            "connections_dropped_total{reason=\"slow_reader\"} 1",
        ] {
            let line = format!("\nsystem_image_serve_{line}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}

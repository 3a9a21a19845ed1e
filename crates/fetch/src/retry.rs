//! Says whether to try a failed transfer again, and when.
//!
//! In: what went wrong, each time. Out: how long to wait, or that it is over. No socket, clock or
//! sleep here: the rules are tested with a table.

use std::time::Duration;

/// Bytes that count as progress: a transfer that delivers so much before each interruption goes
/// on however often it is interrupted, because it will end.
const PROGRESS: u64 = 256 << 10;

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts without progress in between, the first included.
    pub attempts: u32,
    /// Wait after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// Longest wait, also if the server asks for more.
    pub max_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(60),
        }
    }
}

/// What went wrong with one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server says that there is no such file: 404 or 410.
    Absent,
    /// The server, or we, will say the same the next time.
    Refused,
    /// The server asks to come back later: 429 or 503.
    Busy {
        /// How much later, if it says so.
        retry_after: Option<Duration>,
    },
    /// The server has a problem of its own: another 5xx, or 408.
    Server,
    /// No connection: no network, no such host, nobody listens, no agreement on TLS.
    Unreachable,
    /// The answer is not HTTP, or contradicts itself or the question.
    Garbled,
    /// The connection ended before the file did.
    Lost {
        /// Bytes of the file in this attempt.
        received: u64,
    },
    /// Too little arrived for too long.
    Stalled {
        /// Bytes of the file in this attempt.
        received: u64,
    },
}

impl Failure {
    /// The same for a transfer that begins anew each time: what it received is lost and brings it
    /// no nearer to its end, so that a server that always breaks off is not asked for ever.
    pub(crate) fn without_progress(self) -> Self {
        match self {
            Self::Lost { .. } => Self::Lost { received: 0 },
            Self::Stalled { .. } => Self::Stalled { received: 0 },
            other => other,
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after so long.
    Wait(Duration),
    /// Do not try again.
    GiveUp(GiveUp),
}

/// Why not to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// It would end the same way.
    Pointless,
    /// It has been tried often enough.
    TriedEnough {
        /// The attempts since the last progress.
        attempts: u32,
    },
}

/// Counts the attempts of one transfer.
#[derive(Clone, Debug)]
pub struct Retry {
    patience: Patience,
    attempts: u32,
}

impl Retry {
    /// A transfer that has not been tried yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            attempts: 0,
        }
    }

    /// Says what to do after a failed attempt. The caller sleeps; this never does.
    pub fn after(&mut self, failure: Failure) -> Next {
        let (received, asked) = match failure {
            Failure::Absent | Failure::Refused => return Next::GiveUp(GiveUp::Pointless),
            Failure::Lost { received } | Failure::Stalled { received } => (received, None),
            Failure::Busy { retry_after } => (0, retry_after),
            Failure::Server | Failure::Unreachable | Failure::Garbled => (0, None),
        };
        if received >= PROGRESS {
            self.attempts = 0;
        }
        self.attempts += 1;
        if self.attempts >= self.patience.attempts {
            let attempts = self.attempts;
            return Next::GiveUp(GiveUp::TriedEnough { attempts });
        }
        let doubled = 2u32.saturating_pow(self.attempts - 1);
        let wait = asked.unwrap_or_else(|| self.patience.first_wait.saturating_mul(doubled));
        Next::Wait(wait.min(self.patience.max_wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn wait(seconds: u64) -> Next {
        Next::Wait(Duration::from_secs(seconds))
    }

    const POINTLESS: Next = Next::GiveUp(GiveUp::Pointless);
    const ENOUGH: Next = Next::GiveUp(GiveUp::TriedEnough { attempts: 4 });
    const LITTLE: Failure = Failure::Lost {
        received: PROGRESS - 1,
    };
    const MUCH: Failure = Failure::Lost { received: PROGRESS };
    const MUCH_SLOWLY: Failure = Failure::Stalled { received: PROGRESS };

    fn busy(seconds: u64) -> Failure {
        let retry_after = Some(Duration::from_secs(seconds));
        Failure::Busy { retry_after }
    }

    #[test]
    fn each_sequence_of_failures_has_its_waits_and_its_end() {
        use Failure::{Absent, Garbled, Refused, Server, Unreachable};
        let patience = Patience {
            attempts: 4,
            first_wait: Duration::from_secs(2),
            max_wait: Duration::from_secs(7),
        };
        let cases: &[&[(Failure, Next)]] = &[
            &[(Absent, POINTLESS)],
            &[(Refused, POINTLESS)],
            &[
                (Server, wait(2)),
                (Server, wait(4)),
                (Server, wait(7)),
                (Server, ENOUGH),
            ],
            &[
                (Unreachable, wait(2)),
                (Garbled, wait(4)),
                (Absent, POINTLESS),
            ],
            &[
                (busy(1), wait(1)),
                (busy(0), wait(0)),
                (busy(3600), wait(7)),
                (busy(1), ENOUGH),
            ],
            &[(Failure::Busy { retry_after: None }, wait(2))],
            &[
                (LITTLE, wait(2)),
                (LITTLE, wait(4)),
                (LITTLE, wait(7)),
                (LITTLE, ENOUGH),
            ],
            &[
                (Server, wait(2)),
                (Server, wait(4)),
                (MUCH, wait(2)),
                (MUCH, wait(2)),
            ],
            &[
                (Server, wait(2)),
                (Server, wait(4)),
                (MUCH_SLOWLY, wait(2)),
                (Server, wait(4)),
            ],
        ];
        for case in cases {
            let mut retry = Retry::new(patience);
            for (step, (failure, want)) in case.iter().enumerate() {
                assert_eq!(retry.after(*failure), *want, "step {step} of {case:?}");
            }
        }
    }

    #[test]
    fn absurd_patience_does_not_overflow() {
        let max = Duration::MAX;
        let patience = Patience {
            attempts: u32::MAX,
            first_wait: max,
            max_wait: max,
        };
        let mut retry = Retry::new(patience);
        for _ in 0..100 {
            assert_eq!(retry.after(Failure::Server), Next::Wait(max));
        }
    }
}

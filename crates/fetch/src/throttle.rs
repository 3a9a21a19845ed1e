//! Limits of speed: a bucket of bytes that fills with time, and the queue before it.
//!
//! [`Bucket`] decides and knows no clock; [`Throttle`] waits. Whoever shares a throttle is served in
//! turn and a little at a time, so that all have the same share; a new rate holds at once, also for
//! those who wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Served in this part of a second: 20 ms is a quick turn for each of twenty that share, and few
/// enough timers.
const TURNS: u64 = 50;

/// Served at a time, in bytes, however high the rate is.
const MAX_QUANTUM: u64 = 64 << 10;

/// Time for which bytes are saved up when nobody takes them: longer than a timer is late on a busy
/// machine, and a fortieth of the ten seconds in which a rate must be kept.
const SAVED: Duration = Duration::from_millis(250);

const SECOND: u128 = 1_000_000_000;

/// A limit of speed for one or several downloads.
pub struct Throttle {
    /// Bytes per second; 0 is no limit.
    rate: AtomicU64,
    /// How often the rate was set.
    changes: AtomicU64,
    bucket: Mutex<Bucket>,
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    begin: Instant,
}

impl Throttle {
    /// A limit of so many bytes per second; 0 is none.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            rate: AtomicU64::new(bytes_per_second),
            changes: AtomicU64::new(0),
            bucket: Mutex::new(Bucket::new(bytes_per_second)),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            begin: Instant::now(),
        }
    }

    /// Sets another limit. It holds at once, also for what waits now.
    pub fn set(&self, bytes_per_second: u64) {
        let mut bucket = self.bucket();
        bucket.set(self.begin.elapsed(), bytes_per_second);
        self.rate.store(bytes_per_second, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
        drop(bucket);
        // Only the first of the queue waits for time; the others wait for it. If nobody does, the
        // next one finds a permit, looks once in vain, and waits on.
        self.changed.notify_one();
    }

    /// The limit, in bytes per second; 0 is none.
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Acquire)
    }

    /// Waits until at least one of `wanted` bytes may pass, and says how many may pass now.
    pub async fn take(&self, wanted: usize) -> usize {
        if wanted == 0 || self.rate() == 0 {
            return wanted;
        }
        let _turn = self.turn.lock().await;
        loop {
            let taken = self.bucket().take(self.begin.elapsed(), wanted as u64);
            match taken {
                Taken::Now(bytes) => {
                    return usize::try_from(bytes).expect("it is no more than wanted");
                }
                // Either way the bucket is asked again.
                Taken::After(wait) => drop(timeout(wait, self.changed.notified()).await),
            }
        }
    }

    /// Gives back what was taken and not used.
    fn give_back(&self, bytes: usize) {
        self.bucket().give_back(bytes as u64);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttle({} B/s)", self.rate())
    }
}

/// All the limits of one download.
#[derive(Debug)]
pub(crate) struct Limits {
    throttles: Vec<Arc<Throttle>>,
    /// Bytes that may pass now: pieces from the network may be shorter than a turn's share, and
    /// a download must not have less because of that.
    allowance: usize,
    /// When that was granted.
    changes: u64,
}

impl Limits {
    pub(crate) fn new(throttles: &[Arc<Throttle>]) -> Self {
        Self {
            throttles: throttles.to_vec(),
            allowance: 0,
            changes: 0,
        }
    }

    /// Whether there is any limit now.
    pub(crate) fn any(&self) -> bool {
        self.throttles.iter().any(|throttle| throttle.rate() > 0)
    }

    /// Waits until at least one of `wanted` bytes may pass all limits; says how many may now.
    pub(crate) async fn pass(&mut self, wanted: usize) -> usize {
        let changes = self.changes();
        if self.changes != changes {
            // What was granted at another rate does not count any more.
            (self.allowance, self.changes) = (0, changes);
        }
        if !self.any() {
            return wanted;
        }
        if self.allowance == 0 {
            let mut granted = usize::try_from(MAX_QUANTUM).unwrap_or(usize::MAX);
            for (before, throttle) in self.throttles.iter().enumerate() {
                let taken = throttle.take(granted).await;
                for earlier in &self.throttles[..before] {
                    earlier.give_back(granted - taken);
                }
                granted = taken;
            }
            self.allowance = granted;
        }
        let passing = wanted.min(self.allowance);
        self.allowance -= passing;
        passing
    }

    fn changes(&self) -> u64 {
        let changes = |throttle: &Arc<Throttle>| throttle.changes.load(Ordering::Acquire);
        self.throttles.iter().map(changes).sum()
    }
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// So many bytes may pass.
    Now(u64),
    /// None; ask again after this.
    After(Duration),
}

/// Bytes that may pass, growing with time. Times are those since any one moment.
#[derive(Clone, Debug)]
struct Bucket {
    rate: u64,
    /// In billionths of a byte: what a rate of one byte per second brings in a nanosecond.
    saved: u128,
    at: Duration,
}

impl Bucket {
    fn new(rate: u64) -> Self {
        Self {
            rate,
            saved: 0,
            at: Duration::ZERO,
        }
    }

    fn set(&mut self, now: Duration, rate: u64) {
        self.fill(now);
        self.rate = rate;
        self.saved = self.saved.min(self.most());
    }

    /// Takes up to `wanted` bytes, more than none, but no more than one turn's share.
    fn take(&mut self, now: Duration, wanted: u64) -> Taken {
        if self.rate == 0 {
            return Taken::Now(wanted);
        }
        self.fill(now);
        let share = u128::from(wanted.min(self.quantum()));
        if let Some(left) = self.saved.checked_sub(share * SECOND) {
            self.saved = left;
            return Taken::Now(u64::try_from(share).expect("it is no more than wanted"));
        }
        let missing = (share * SECOND - self.saved).div_ceil(u128::from(self.rate));
        Taken::After(Duration::from_nanos(
            u64::try_from(missing).unwrap_or(u64::MAX),
        ))
    }

    fn give_back(&mut self, bytes: u64) {
        let more = self.saved + u128::from(bytes) * SECOND;
        self.saved = more.min(self.most());
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_nanos();
        self.at = self.at.max(now);
        let more = passed.saturating_mul(u128::from(self.rate));
        self.saved = self.saved.saturating_add(more).min(self.most());
    }

    fn quantum(&self) -> u64 {
        (self.rate / TURNS).clamp(1, MAX_QUANTUM)
    }

    fn most(&self) -> u128 {
        let saved = u128::from(self.rate) * SAVED.as_nanos();
        saved.max(u128::from(self.quantum()) * SECOND)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::task::JoinSet;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_bucket_fills_with_time_and_grants_a_turn_at_most() {
        use Taken::{After, Now};
        /// Time in milliseconds, bytes wanted, and the answer.
        type Step = (u64, u64, Taken);
        let cases: &[(u64, &[Step])] = &[
            (0, &[(0, 1 << 40, Now(1 << 40))]),
            (
                1000,
                &[
                    (0, 500, After(ms(20))),
                    (20, 500, Now(20)),
                    (20, 5, After(ms(5))),
                    (24, 5, After(ms(1))),
                    (25, 5, Now(5)),
                    (30, 1, Now(1)),
                ],
            ),
            (1, &[(0, 9, After(ms(1000))), (1000, 9, Now(1))]),
            // Only so much is saved up.
            (1000, &[(100_000, 20, Now(20)), (100_000, 230, Now(20))]),
            (
                1 << 40,
                &[
                    (0, 1, After(Duration::from_nanos(1))),
                    (1, 1 << 30, Now(64 << 10)),
                ],
            ),
            (u64::MAX, &[(u64::MAX, u64::MAX, Now(64 << 10))]),
        ];
        for (rate, steps) in cases {
            let mut bucket = Bucket::new(*rate);
            for (step, (time, wanted, want)) in steps.iter().enumerate() {
                let got = bucket.take(ms(*time), *wanted);
                assert_eq!(got, *want, "step {step} at {rate} B/s");
            }
        }
    }

    #[test]
    fn another_rate_keeps_no_more_than_it_would_have_saved() {
        let mut bucket = Bucket::new(1_000_000);
        bucket.set(ms(10_000), 1000);
        let mut at_once = 0;
        while let Taken::Now(bytes) = bucket.take(ms(10_000), 1 << 20) {
            at_once += bytes;
        }
        assert!(at_once <= 250, "{at_once}");
        bucket.set(ms(10_000), 0);
        assert_eq!(bucket.take(ms(10_000), 1 << 20), Taken::Now(1 << 20));
    }

    proptest! {
        #[test]
        fn no_more_passes_than_time_allows_and_whoever_waits_is_served(
            rate in 1u64..1 << 40,
            steps in proptest::collection::vec((0u64..500, 1u64..1 << 20, 0u64..100), 1..100),
        ) {
            let (mut bucket, mut now, mut passed) = (Bucket::new(rate), Duration::ZERO, 0u128);
            for (later, wanted, unused) in steps {
                now += ms(later);
                match bucket.take(now, wanted) {
                    Taken::Now(bytes) => {
                        prop_assert!(0 < bytes && bytes <= wanted.min(MAX_QUANTUM));
                        let unused = unused.min(bytes);
                        bucket.give_back(unused);
                        passed += u128::from(bytes - unused);
                    }
                    Taken::After(wait) => {
                        now += wait;
                        let served = bucket.take(now, wanted);
                        prop_assert!(matches!(served, Taken::Now(bytes) if bytes > 0));
                        if let Taken::Now(bytes) = served {
                            passed += u128::from(bytes);
                        }
                    }
                }
                prop_assert!(passed * SECOND <= u128::from(rate) * now.as_nanos());
            }
        }

        #[test]
        fn steady_demand_gets_the_whole_rate(rate in 1000u64..1 << 28, late in 0u64..30) {
            let (mut bucket, mut now, mut passed) = (Bucket::new(rate), Duration::ZERO, 0u64);
            while now < ms(10_000) {
                match bucket.take(now, 1 << 20) {
                    Taken::Now(bytes) => passed += bytes,
                    // A timer is late by up to some milliseconds.
                    Taken::After(wait) => now += wait + ms(late),
                }
            }
            let share = passed as f64 / (rate as f64 * now.as_secs_f64());
            prop_assert!((0.97..=1.0).contains(&share), "{share}");
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(future)
    }

    /// Bytes that each of some downloads passed in ten seconds of the test's clock.
    async fn shares(throttle: &Arc<Throttle>, pieces: &[usize]) -> Vec<usize> {
        let end = Instant::now() + Duration::from_secs(10);
        let mut downloads = JoinSet::new();
        for (which, piece) in pieces.iter().copied().enumerate() {
            let mut limits = Limits::new(&[Arc::clone(throttle)]);
            downloads.spawn(async move {
                let mut passed = 0;
                while Instant::now() < end {
                    passed += limits.pass(piece).await;
                }
                (which, passed)
            });
        }
        let mut shares = downloads.join_all().await;
        shares.sort_unstable();
        shares.into_iter().map(|(_, passed)| passed).collect()
    }

    #[test]
    fn downloads_that_share_a_limit_have_equal_shares_whatever_their_pieces_are() {
        run(async {
            let throttle = Arc::new(Throttle::new(1_000_000));
            let shares = shares(&throttle, &[1, 100, 10_000, 1_000_000]).await;
            for share in &shares {
                assert!(share.abs_diff(2_500_000) < 125_000, "{shares:?}");
            }
        });
    }

    #[test]
    fn a_new_limit_holds_for_those_who_wait() {
        run(async {
            let throttle = Arc::new(Throttle::new(1));
            let begin = Instant::now();
            let (first, second) = (throttle.take(1000), throttle.take(1000));
            let setter = async { throttle.set(0) };
            let (first, second, ()) = futures_util::future::join3(first, second, setter).await;
            assert_eq!((first, second, throttle.rate()), (1000, 1000, 0));
            assert_eq!(Instant::now(), begin);
        });
    }

    #[test]
    fn all_limits_hold_and_the_narrowest_takes_nothing_from_the_wider_ones() {
        run(async {
            let (own, shared) = (
                Arc::new(Throttle::new(100_000)),
                Arc::new(Throttle::new(500_000)),
            );
            let mut limits = Limits::new(&[Arc::clone(&shared), own]);
            let (begin, mut passed) = (Instant::now(), 0);
            let mut other = 0;
            while begin.elapsed() < Duration::from_secs(10) {
                passed += limits.pass(1 << 20).await;
                other += shared.take(8000).await;
            }
            assert!(passed.abs_diff(1_000_000) < 50_000, "{passed}");
            assert!(other > 3_500_000, "{other}");
        });
    }
}

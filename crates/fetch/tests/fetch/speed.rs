//! Limits of speed, as they show in what arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use system_image_fetch::{Event, Fetcher, Request, Settings, Size, Throttle};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn limited(place: &Place, server: &Server, name: &str, limits: &[&Arc<Throttle>]) -> Request {
    let mut request = Request {
        url: server.url(&format!("/{name}")),
        destination: place.path(name),
        size: Size::AtMost(1 << 30),
        digest: None,
        ..place.request(server, b"")
    };
    request.how.limits = limits.iter().map(|limit| Arc::clone(limit)).collect();
    request
}

/// Bytes that two seconds bring, at any speed.
fn two_seconds(server_rates: &[u64]) -> Server {
    let bodies: Vec<_> = server_rates
        .iter()
        .map(|rate| content(usize::try_from(2 * rate).unwrap(), 1))
        .collect();
    Server::start(move |asked| {
        Answer::whole(&bodies[asked.path[1..].parse::<usize>().unwrap()], "")
    })
}

#[test]
fn a_limit_is_kept_at_every_speed() {
    let rates = [1000, 100_000, 10_000_000];
    let (place, server) = (Place::new(), two_seconds(&rates));
    let fetcher = fetcher();
    run(join_all(rates.iter().enumerate().map(|(which, rate)| {
        let throttle = Arc::new(Throttle::new(*rate));
        let request = limited(&place, &server, &which.to_string(), &[&throttle]);
        let fetcher = fetcher.clone();
        async move {
            let begin = Instant::now();
            let _ = fetcher.receive(&request, &mut |_| {}).await.unwrap();
            let took = begin.elapsed().as_secs_f64();
            // A busy machine makes it slower, and nothing may make it faster.
            assert!((1.9..4.0).contains(&took), "{rate} B/s took {took} s");
        }
    })));
}

#[test]
fn a_limit_is_changed_while_it_holds() {
    let (place, body) = (Place::new(), content(20_000_000, 1));
    let server = Server::start(move |_| Answer::whole(&body, ""));
    let throttle = Arc::new(Throttle::new(1));
    let request = limited(&place, &server, "file", &[&throttle]);
    let begin = Instant::now();
    let mut slow = 0;
    let raised = Arc::clone(&throttle);
    let _ = run(fetcher().receive(&request, &mut |event| {
        if let Event::Progress(now) = event
            && now.received <= 2
        {
            slow = now.received;
            if slow == 2 {
                raised.set(0);
            }
        }
    }))
    .unwrap();
    assert_eq!(slow, 2, "byte by byte");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
}

#[test]
fn a_shared_limit_holds_for_all_together_and_an_own_one_within_it() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let server = Server::start(move |_| Answer::whole(&body, ""));
    let (shared, own) = (
        Arc::new(Throttle::new(150_000)),
        Arc::new(Throttle::new(50_000)),
    );
    let fetcher = fetcher();
    let slow = limited(&place, &server, "slow", &[&shared, &own]);
    let fast = limited(&place, &server, "fast", &[&shared]);
    let begin = Instant::now();
    let timed = |request: Request| {
        let fetcher = fetcher.clone();
        async move {
            let _ = fetcher.receive(&request, &mut |_| {}).await.unwrap();
            begin.elapsed().as_secs_f64()
        }
    };
    let (slow, fast) = run(join(timed(slow), timed(fast)));
    assert!(slow >= 1.9, "its own limit: {slow}");
    assert!(fast >= 0.9 && fast < slow, "what is left: {fast}");
}

#[test]
fn time_that_a_limit_takes_is_not_the_servers() {
    let (place, body) = (Place::new(), content(3000, 1));
    // The second half comes when the first is long over.
    let server = Server::start(move |_| Answer::whole(&body, ""));
    let throttle = Arc::new(Throttle::new(5000));
    let mut settings = Settings::new("Tester/1");
    settings.stall_timeout = SHORT;
    settings.patience.attempts = 1;
    let request = limited(&place, &server, "file", &[&throttle]);
    let fetcher = Fetcher::new(settings).unwrap();
    let received = run(fetcher.receive(&request, &mut |_| {})).unwrap();
    assert_eq!(received.transferred, 3000);
}

#[test]
fn what_came_slowly_is_written_soon() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let server = Server::start(move |_| Answer::whole(&body, "ETag: \"1\"\r\n").hang(1000));
    let request = limited(&place, &server, "file", &[]);
    let part = place.path("file.part");
    let fetcher = fetcher();
    run(async {
        let mut ignore = |_| {};
        let mut download = std::pin::pin!(fetcher.receive(&request, &mut ignore));
        let written = || std::fs::metadata(&part).map_or(0, |part| part.len());
        while written() < 1000 {
            let wait = tokio::time::timeout(Duration::from_millis(10), &mut download);
            assert!(wait.await.is_err(), "it does not end");
        }
    });
}

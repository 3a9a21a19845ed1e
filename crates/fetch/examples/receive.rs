//! Fetches one file, to be measured from outside beside other downloaders:
//!
//! ```console
//! $ cargo build --release -p system-image-fetch --example receive
//! $ /usr/bin/time -v target/release/examples/receive http://127.0.0.1:8080/1g /dev/shm/1g sha256
//! ```
//!
//! After the address and the place come any of: the name of a digest to compute, a number of
//! connections, `slow=BYTES_PER_SECOND`, `deflate`.

use std::sync::Arc;

use system_image_fetch::{Event, Fetcher, How, Place, Request, Settings, Size, Throttle};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(place)) = (arguments.next(), arguments.next()) else {
        return Err("which address, and where to?".into());
    };
    let mut how = How::default();
    for argument in arguments {
        if let Some(rate) = argument.strip_prefix("slow=") {
            how.limits.push(Arc::new(Throttle::new(rate.parse()?)));
        } else if argument == "deflate" {
            how.decompress = true;
        } else if let Ok(connections) = argument.parse() {
            how.connections = connections;
        } else {
            how.compute = Some(argument.parse()?);
        }
    }
    let request = Request {
        url,
        destination: place.into(),
        size: Size::AtMost(u64::MAX),
        digest: None,
        how,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let fetcher = Fetcher::new(Settings::new("receive"))?;
        let mut events = 0u64;
        let mut received = fetcher
            .receive(&request, &mut |event| {
                events += 1;
                if let Event::Retrying { wait, why } = event {
                    eprintln!("{why}; again in {wait:?}");
                }
            })
            .await?;
        let file = received.place(&request.destination, Place::Replace).await?;
        println!("{file:?} {events} events");
        Ok(())
    })
}

//! Stores what does not come from a server, as if it did: under a temporary name, hashed, bounded and
//! limited in speed. It is always begun anew: a source on this machine costs nothing.

use std::io::{self, Read};

use bytes::Bytes;

use crate::batch::Batch;
use crate::disk::{Disk, blocking};
use crate::error::FetchError;
use crate::fetcher::OnEvent;
use crate::inflow::Inflow;
use crate::received::Received;
use crate::request::Request;
use crate::sink::{Finished, Sink, disk_error, part_of};
use crate::throttle::Limits;

/// Read at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// Receives a file from a reader, which blocking threads read. Only what the request says of its
/// destination, its size, its digest and its speed matters; `total` is its size in bytes, if that is known.
pub async fn store(
    request: &Request,
    mut source: impl Read + Send + 'static,
    total: Option<u64>,
    on_event: OnEvent<'_>,
) -> Result<Received, FetchError> {
    let mut disk = Disk::open(request, &[]).await?;
    let begin = move |sink: &mut Sink| {
        sink.restart()?;
        sink.join(total)
    };
    disk.run(begin).await?;
    let mut limits = Limits::new(&request.how.limits);
    let mut inflow = Inflow {
        url: &request.url,
        disk: &mut disk,
        limits: &mut limits,
        on_event,
        inflating: false,
        here: 0,
        total,
        max: request.size.limit(),
        batch: Batch::default(),
        write_by: None,
    };
    loop {
        let (read, again) = blocking(move || (piece(&mut source), source)).await;
        source = again;
        let piece = read.map_err(|error| disk_error(&request.destination, error))?;
        if piece.is_empty() {
            break;
        }
        inflow.take(piece).await.map_err(|failed| failed.error)?;
    }
    inflow.finish().await.map_err(|failed| failed.error)?;
    drop(inflow);
    match disk.run(Sink::check).await? {
        Finished::Good { size, digest } => Ok(Received {
            size,
            transferred: 0,
            digest,
            content_type: None,
            name: None,
            part: part_of(&request.destination, request.how.suffix),
            disk,
        }),
        Finished::Wrong { error, .. } => {
            disk.run(Sink::remove).await?;
            Err(error)
        }
    }
}

/// The next bytes; none at the end.
fn piece(source: &mut impl Read) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(BUFFER);
    source.take(BUFFER as u64).read_to_end(&mut buffer)?;
    Ok(buffer.into())
}

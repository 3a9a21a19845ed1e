//! Downloads over HTTP and HTTPS: resumed, retried, hashed and bounded while they are written.
//!
//! [`Fetcher::fetch`] brings one file to its place, [`Fetcher::fetch_all`] a group,
//! [`Fetcher::receive`] leaves a file under its temporary name until it is [placed](Received::place),
//! [`Fetcher::fetch_small`] brings a few bytes into memory, [`Fetcher::fetch_unnamed`] a longer
//! document into a temporary file. A name in the file system is either absent or a whole file with
//! the right digest; what is under way lies beside it as `NAME.part`, survives the process, and is
//! gone on with by the next. Bytes are named by their digest where that is known, so the source needs
//! no trust; whether a digest is to be trusted is for `trust` to say. A [`Throttle`] limits the speed
//! of all downloads that share it.

mod answer;
mod batch;
mod body;
mod certificates;
mod client;
mod digest;
mod disk;
mod disposition;
mod document;
mod error;
mod fetcher;
mod group;
mod headers;
mod inflate;
mod inflow;
mod lock;
mod pinned;
mod proxy;
mod range;
mod received;
mod redirect;
mod request;
mod retry;
mod room;
mod side;
mod sink;
mod spread;
mod store;
mod throttle;
mod tls;
mod transfer;
mod trouble;

pub use certificates::certificates;
pub use client::Settings;
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{FetchError, Trouble};
pub use fetcher::{Fetcher, OnEvent, OnProgress};
pub use received::Received;
pub use request::{Event, Fetched, How, Place, Progress, Request, Size};
pub use retry::{Failure, GiveUp, Next, Patience, Retry};
pub use rustls::pki_types::CertificateDer;
pub use sink::discard;
pub use store::store;
pub use throttle::Throttle;

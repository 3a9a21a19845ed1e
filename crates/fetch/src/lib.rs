//! Downloads over HTTP and HTTPS: resumed, retried, hashed and bounded while they are written.
//!
//! [`Fetcher::fetch`] brings one file to its place, [`Fetcher::fetch_all`] a group,
//! [`Fetcher::fetch_small`] a few bytes into memory, [`Fetcher::fetch_unnamed`] a longer document
//! into a temporary file. A name in the file system is either absent or a whole file with the right
//! digest; what is under way lies beside it as `NAME.part`, survives the process, and is gone on
//! with by the next. Bytes are named by their digest where that is known, so the source needs no
//! trust; whether a digest is to be trusted is for `trust` to say.

mod body;
mod client;
mod document;
mod error;
mod fetcher;
mod group;
mod range;
mod request;
mod retry;
mod sink;
mod tls;

pub use client::Settings;
pub use error::{FetchError, Trouble};
pub use fetcher::{Fetcher, OnProgress};
pub use request::{Fetched, Progress, Request, Size};
pub use retry::{Failure, GiveUp, Next, Patience, Retry};

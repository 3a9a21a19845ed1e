//! Makes update archives, on the server only: tells what an archive holds ([`classify()`]),
//! rewrites it in the one form that every device reads ([`normalise()`], [`Writer`]), and finds
//! the changed files between two images ([`delta()`]).
//!
//! Everything streams or seeks: no image is ever in memory, and equal input gives equal bytes.
//! Compression, signatures and names in the pool are the server's; reading and applying is the
//! crate `system-image-delta`'s.

pub mod classify;
mod compare;
pub mod delta;
mod index;
pub mod normalise;
pub mod parallel;
pub mod patch;
mod removed;
pub mod writer;

pub use classify::{Classifier, ClassifyError, Form, classify};
pub use delta::{DeltaError, Options, Removal, Summary, Times, delta};
pub use index::Side;
pub use normalise::{Appended, Edits, NormaliseError, Normalised, normalise, normalise_with};
pub use writer::Writer;

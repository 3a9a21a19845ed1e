//! How the programs tell people what happened: an error with its causes and a hint, once, at the
//! top; progress as bars on a terminal and as plain lines elsewhere.

mod error;
#[cfg(feature = "progress")]
mod progress;
mod size;

pub use self::error::{describe, printable};
#[cfg(feature = "progress")]
pub use self::progress::{Progress, bar, columns};
pub use self::size::Size;

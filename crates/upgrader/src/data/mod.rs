//! User data: what a reset removes, what an archive brings, and the marks that a flasher sets.

pub mod mark;
pub mod password;
pub mod reset;

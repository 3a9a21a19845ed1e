//! End to end: the programs together, as a user runs them. `cargo xtask test` builds the programs
//! first; run by hand, these tests need `cargo build --workspace` before.

use std::path::PathBuf;

/// Where the programs were built.
///
/// # Panics
/// When they were not.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests are built in target/<profile>/deps");
    for program in [
        "system-image-server",
        "system-image-cli",
        "system-image-downloader",
        "system-image-upgrader",
    ] {
        assert!(
            profile.join(program).exists(),
            "`{program}` is not built: cargo build --workspace"
        );
    }
    profile.to_owned()
}

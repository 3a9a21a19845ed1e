//! `system-image-downloader`: the daemon, or, with a command, its client for people.

use std::process::ExitCode;

fn main() -> ExitCode {
    system_image_downloader::cli::main()
}

//! `system-image-cli`: parse, run, print errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    system_image_client::cli::main()
}

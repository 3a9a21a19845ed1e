//! `system-image-server`: parse, dispatch, print errors.

use std::process::ExitCode;

use clap::Parser;
use system_image_server::commands::{Cli, exit_code, hint};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!(
                "{}",
                system_image_report::describe(&error, hint(&error).as_deref())
            );
            exit_code(&error)
        }
    }
}

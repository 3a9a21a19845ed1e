//! `system-image-manual DIR`: writes man pages and completions.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: system-image-manual DIR");
        return ExitCode::from(2);
    };
    match system_image_manual::write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write below `{}`", directory.display());
            eprintln!("caused by: {error}");
            ExitCode::FAILURE
        }
    }
}

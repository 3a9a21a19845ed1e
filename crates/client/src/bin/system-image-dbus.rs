//! `system-image-dbus`: serve on the system bus, print errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    system_image_client::daemon::main()
}

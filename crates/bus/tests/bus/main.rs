//! Each fact against the services of a bus of one's own.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod access;
mod download;
mod network;
mod power;

use camino::Utf8Path;
use system_image_bus::Kernel;
use system_image_testkit::Bus;
use zbus::Connection;

/// Runs a test as the daemons run: in one thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

async fn connect(bus: &Bus) -> Connection {
    let builder = zbus::connection::Builder::address(bus.address());
    builder.build().await.unwrap()
}

/// A kernel whose files are those, with all else missing.
fn kernel(dir: &tempfile::TempDir, files: &[(&str, &str)]) -> Kernel {
    let root = Utf8Path::from_path(dir.path()).unwrap();
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Kernel::below(root)
}

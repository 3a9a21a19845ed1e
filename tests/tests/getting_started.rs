//! The commands of the user documentation, run as a newcomer would type them.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The text of all `sh` blocks of a page, in order.
fn commands(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    blocks.collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Runs a page; what it printed.
fn run(page: &str) -> String {
    let lab = tempfile::tempdir().unwrap();
    let programs = system_image_tests::programs();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    // Whatever happens, the server must not outlive the page.
    let script = format!(
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}",
        commands(&docs().join(page))
    );
    let output = Command::new("bash")
        .arg("-c")
        .arg(script)
        .env("LAB", lab.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_operators_page_works_as_written() {
    let said = run("operator.md");
    assert!(said.contains("nothing changed since version"), "{said}");
    assert!(said.contains("tag=OTA-1"), "{said}");
    assert!(
        said.contains("is withdrawn") || said.contains("leads back"),
        "{said}"
    );
}

#[test]
fn getting_started_works_as_written() {
    let said = run("getting-started.md");
    assert!(said.contains("current build number: 2"), "{said}");
    assert!(said.contains("Upgrade path is 3"), "{said}");
    assert!(
        said.contains(".delta-rootfs-"),
        "the last update is by the delta: {said}"
    );
}

#[test]
fn the_devices_page_works_as_written() {
    let said = run("device.md");
    for part in [
        "Upgrade path is 1",
        "to download: ",
        "chosen",
        "prepared: version 1 of stable, every file verified",
        "handed over stable 0 -> 1",
        "auto_download=0\nmin_battery=30\n",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn the_downloaders_page_works_as_written() {
    let said = run("downloader.md");
    for part in [
        "\"activity\": \"paused\"",
        "progress 6000000 6000000",
        "\ns \"running\"",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn the_integrators_page_works_as_written() {
    let said = run("integrator.md");
    for part in [
        "ok       the system",
        "\"outcome\": \"installed\"",
        "\n42\none\n",
        "ok       the slot `b`",
        "trial    b, 3 tries left\nnext     b\n",
        "running  b\ndefault  b\nnext     b\n",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn every_page_that_is_linked_exists() {
    let root = docs().join("..");
    let mut pages = vec![
        root.join("README.md"),
        root.join("ARCHITECTURE.md"),
        root.join("CONTRIBUTING.md"),
    ];
    pages.extend(
        fs::read_dir(docs())
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|kind| kind == "md"))
    {
        let text = fs::read_to_string(page).unwrap();
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap().split('#').next().unwrap();
            if !link.is_empty() && !link.contains("://") {
                let place = page.parent().unwrap().join(link);
                assert!(place.exists(), "{}: {link}", page.display());
            }
        }
    }
}

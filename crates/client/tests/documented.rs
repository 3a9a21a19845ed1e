//! `docs/device.md` has each message that a person may see, so that its remedy can be looked up.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where messages are made, beside the client's own sources.
const OTHERS: [&str; 7] = [
    "fetch/src/error.rs",
    "fetch/src/trouble.rs",
    "trust/src/chain.rs",
    "trust/src/verify_error.rs",
    "trust/src/keyring.rs",
    "bus/src/access.rs",
    "formats/src/config.rs",
];

/// What begins a message in the sources.
const BEGINS: [&str; 3] = ["#[error(\"", "bail!(\"", "anyhow!(\""];

/// What is shorter than that says nothing.
const SHORT: usize = 6;

fn crates() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// The longest part of each message that is always the same, without quotes.
fn messages(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    // A message may stand on a line of its own.
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code.replace("( ", "(");
    let texts = BEGINS.iter().flat_map(|begin| code.split(begin).skip(1));
    texts
        .filter_map(|text| {
            let text = text.split('"').next()?.replace("\\n", "").replace('`', "");
            let parts = text.split(['{', '}']).step_by(2);
            let parts = parts.map(|part| part.trim_matches([' ', ',']));
            let longest = parts.max_by_key(|part| part.len())?.to_owned();
            (longest.len() >= SHORT).then_some(longest)
        })
        .collect()
}

#[test]
fn each_message_is_on_the_page_for_devices() {
    let page = fs::read_to_string(crates().join("../docs/device.md")).unwrap();
    let page = page.replace('`', "");
    let own = sources(&crates().join("client/src"));
    let others = OTHERS.map(|path| crates().join(path));
    let mut count = 0;
    for path in own.iter().chain(&others) {
        for message in messages(&fs::read_to_string(path).unwrap()) {
            assert!(page.contains(&message), "{}: {message}", path.display());
            count += 1;
        }
    }
    assert!(count > 60, "only {count} messages were found");
}

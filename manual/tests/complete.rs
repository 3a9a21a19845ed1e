//! Each command has a page that formatters take, and each shell its completions.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use system_image_client::settings;
use system_image_formats::config::keys::SECTIONS;
use system_image_manual::{pages, programs, section, write};

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// The pages that were written, with their sections' directories.
fn written(place: &Path) -> BTreeSet<String> {
    let man = place.join("man");
    let sections = names(&man).into_iter();
    sections
        .flat_map(|section| {
            let pages = names(&man.join(&section)).into_iter();
            pages.map(move |name| format!("{section}/{name}"))
        })
        .collect()
}

#[test]
fn each_command_has_a_page_that_says_what_it_does() {
    let place = tempfile::tempdir().unwrap();
    write(place.path()).unwrap();
    let mut wanted = BTreeSet::new();
    for program in programs() {
        let section = section(&program);
        let pages = pages(&program).into_iter();
        wanted.extend(pages.map(|name| format!("man{section}/{name}.{section}")));
    }
    wanted.insert("man5/system-image.ini.5".to_owned());
    assert_eq!(written(place.path()), wanted);
    for page in [
        "man1/system-image-cli.1",
        "man8/system-image-dbus.8",
        "man1/system-image-upgrader.1",
        "man1/system-image-server-mirror-pull.1",
    ] {
        assert!(wanted.contains(page), "{page}");
    }
    for name in wanted {
        let text = fs::read_to_string(place.path().join("man").join(&name)).unwrap();
        assert!(
            text.contains(".SH DESCRIPTION") && text.contains(".SH SYNOPSIS"),
            "{name}"
        );
    }
}

/// The pages that say which keys there are: the manual's and the documentation's.
fn pages_of_keys() -> [(&'static str, String); 2] {
    let place = tempfile::tempdir().unwrap();
    write(place.path()).unwrap();
    let page = fs::read_to_string(place.path().join("man/man5/system-image.ini.5")).unwrap();
    // What the formatter takes for a blank, a hyphen and a change of font.
    let page = ["\\ ", "\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(page, |page, mark| {
            page.replace(mark, if *mark == "\\ " { " " } else { "" })
        });
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/client.md");
    let docs = fs::read_to_string(docs).unwrap().replace('`', "");
    [
        ("the manual", page.replace("\\-", "-")),
        ("docs/client.md", docs),
    ]
}

#[test]
fn each_key_of_the_configuration_is_explained_with_its_default() {
    for (what, text) in pages_of_keys() {
        for section in SECTIONS {
            for key in section.keys {
                let line = |line: &&str| line.contains(key.name);
                assert!(text.lines().any(|text| line(&text)), "{what}: {}", key.name);
                let default = key.default.unwrap_or_default();
                assert!(text.contains(default), "{what}: {} {default}", key.name);
            }
        }
        for setting in settings::KNOWN {
            assert!(text.contains(setting.key), "{what}: {}", setting.key);
        }
    }
}

#[test]
fn formatters_find_nothing_wrong_with_the_pages() {
    if Command::new("groff").arg("--version").output().is_err() {
        eprintln!("skipped: groff is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    write(place.path()).unwrap();
    let man = place.path().join("man");
    for name in written(place.path()) {
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z"])
            .arg(man.join(&name))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{name}: {told}");
    }
}

#[test]
fn each_shell_completes_each_program() {
    let place = tempfile::tempdir().unwrap();
    write(place.path()).unwrap();
    for shell in ["bash", "fish", "zsh"] {
        let directory = place.path().join("completions").join(shell);
        assert_eq!(names(&directory).len(), programs().len(), "{shell}");
        for name in names(&directory) {
            let text = fs::read_to_string(directory.join(&name)).unwrap();
            assert!(text.contains("system-image-"), "{name}");
            if shell == "bash" {
                let checked = Command::new("bash")
                    .arg("-n")
                    .arg(directory.join(&name))
                    .status();
                assert!(checked.unwrap().success(), "{name}");
            }
        }
    }
}

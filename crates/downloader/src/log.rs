//! What happened, for whoever looks after it: to standard error, and into a file where one is wanted.
//!
//! What callers give in confidence stays out: queries and passwords of URLs, headers, metadata.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

use camino::Utf8Path;
use url::Url;

static FILE: OnceLock<File> = OnceLock::new();

/// The file's name in its directory.
const NAME: &str = "system-image-downloader.log";

/// Writes into a file of this directory too, which is made if it is missing.
pub fn into(directory: &Utf8Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // A second directory changes nothing.
    let _ = FILE.set(options.open(directory.join(NAME))?);
    Ok(())
}

/// Says something.
pub fn say(what: impl Display) {
    let line = format!("{what}\n");
    // Whoever reads neither misses nothing else.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(mut file) = FILE.get() {
        let _ = file.write_all(line.as_bytes());
    }
}

/// A URL without what is nobody else's business.
pub fn public(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "(no URL)".to_owned();
    };
    if url.scheme() == "data" {
        return "data:…".to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    // URLs that cannot have them have none.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_told() {
        for (url, want) in [
            ("http://u:p@h/a?token=1#x", "http://h/a?%E2%80%A6"),
            ("https://h/a", "https://h/a"),
            ("data:text/plain,secret", "data:…"),
            ("secret", "(no URL)"),
        ] {
            assert_eq!(public(url), want, "{url}");
        }
    }
}

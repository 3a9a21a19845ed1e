//! The build record of a root file system: the Debian packages that are in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use serde_json::{Map, Value};
use system_image_delta::{Kind, Limits, Reader};

use crate::input::rewound;

/// Where dpkg keeps its list, on the wire.
const STATUS: &[u8] = b"system/var/lib/dpkg/status";

/// Where it keeps those of images that were made without it, one file each.
const STATUS_D: &[u8] = b"system/var/lib/dpkg/status.d/";

/// Largest list that is read, in bytes.
const MAX_STATUS: u64 = 64 << 20;

/// The installed packages of a canonical archive, name to version; none when it has no list.
pub fn packages(tar: &File) -> anyhow::Result<Option<Map<String, Value>>> {
    let mut reader = Reader::seeking(rewound(tar)?, Limits::default());
    let mut found: Option<BTreeMap<String, String>> = None;
    while let Some(header) = reader.next_header()? {
        let is_list = header.path == STATUS || header.path.starts_with(STATUS_D);
        if !is_list || !matches!(header.kind, Kind::File { size } if size <= MAX_STATUS) {
            continue;
        }
        let mut text = Vec::new();
        (&mut reader).take(MAX_STATUS).read_to_end(&mut text)?;
        found
            .get_or_insert_default()
            .extend(installed(&String::from_utf8_lossy(&text)));
    }
    let sorted = found.map(|found| {
        found
            .into_iter()
            .map(|(name, v)| (name, v.into()))
            .collect()
    });
    Ok(sorted)
}

/// The installed packages of a dpkg status file. One of a foreign architecture is told apart by it.
fn installed(status: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        // The lists of `status.d` have no such field.
        let is_installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
        if let (Some(name), Some(version), true) =
            (field("Package"), field("Version"), is_installed)
        {
            let name = if found.iter().any(|(known, _)| known == name) {
                format!("{name}:{}", field("Architecture").unwrap_or_default())
            } else {
                name.to_owned()
            };
            found.push((name, version.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\n\
                      Description: x\n Version: no\n\nPackage: b\nStatus: deinstall ok config-files\n\
                      Version: 1\n\nPackage: a\nStatus: install ok installed\n\
                      Architecture: i386\nVersion: 1:2-3\n\nPackage: c\nVersion: 4\n";
        let found = installed(status);
        let want = [("a", "1:2-3"), ("a:i386", "1:2-3"), ("c", "4")];
        assert_eq!(found, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}

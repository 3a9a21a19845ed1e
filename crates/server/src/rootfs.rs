//! What a root file system needs to be an image's (server spec, section 8.2): places for what is
//! mounted, and links into the Android part.

use system_image_delta::Kind;
use system_image_delta_build::{Appended, Edits};

/// Directories of the Android part that are reached through links at the root.
const ANDROID: [&str; 7] = [
    "cache", "data", "factory", "firmware", "persist", "system", "odm",
];

/// What is left out of a root file system of this product and appended to it. `android` adds the
/// links into the Android part.
pub fn edits(product: &str, android: bool) -> Edits {
    let directory = |path: &str| Appended {
        path: format!("system/{path}"),
        kind: Kind::Directory,
        mode: 0o755,
    };
    let link = |path: &str, target: &str| Appended {
        path: format!("system/{path}"),
        kind: Kind::Symlink {
            target: target.as_bytes().to_vec(),
        },
        mode: 0o777,
    };
    let mut appended = Vec::new();
    if android {
        appended.push(directory("android"));
        appended.extend(ANDROID.map(|name| link(name, &format!("/android/{name}"))));
        appended.push(link("vendor", "/android/system/vendor"));
    }
    appended.push(directory(if product == "core" {
        "writable"
    } else {
        "userdata"
    }));
    appended.push(link("etc/mtab", "/proc/mounts"));
    appended.push(directory("lib/modules"));
    Edits {
        left_out: vec!["system/SWAP.swap".to_owned(), "system/etc/mtab".to_owned()],
        appended,
    }
}

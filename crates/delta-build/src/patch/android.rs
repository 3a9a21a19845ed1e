//! Tells where in an Android boot image kernel, ramdisk and the rest stand.
//!
//! The layout is that of `boot_img_hdr` in Android's "Boot image header" documentation.

use std::ops::Range;

use crate::patch::window::Window;

/// Length of what is read of the header, in bytes: up to its version.
const HEADER: usize = 44;

/// The page of images whose header does not name one.
const PAGE: u64 = 4096;

/// The parts of a boot image with their names, in order. Places are those in the file; between the parts
/// are zeros.
pub(crate) fn parts(window: Window<'_>) -> Option<Vec<(&'static str, Range<u64>)>> {
    let mut header = [0; HEADER];
    window.read_exact_at(&mut header, 0).ok()?;
    if !header.starts_with(b"ANDROID!") {
        return None;
    }
    let word = |at: usize| {
        let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u64::from(u32::from_le_bytes(word))
    };
    // Older images have the length of a device tree where the version is now: it is larger.
    let (page, lens) = match word(40) {
        3 | 4 => (PAGE, vec![("kernel", word(8)), ("ramdisk", word(12))]),
        _ => (
            word(36),
            vec![
                ("kernel", word(8)),
                ("ramdisk", word(16)),
                ("second", word(24)),
            ],
        ),
    };
    if !page.is_power_of_two() || !(512..=65_536).contains(&page) {
        return None;
    }
    let mut at = page;
    let mut parts = vec![("header", window.place(&(0..page)))];
    for (name, len) in lens {
        if at + len > window.len() {
            return None;
        }
        parts.push((name, window.place(&(at..at + len))));
        at = (at + len).next_multiple_of(page);
    }
    if at < window.len() {
        parts.push(("rest", window.place(&(at..window.len()))));
    }
    Some(parts)
}

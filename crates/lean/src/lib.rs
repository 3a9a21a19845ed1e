//! Gives back to the kernel what work has touched and waiting does not need.
//!
//! Work runs through TLS, OpenPGP and SQLite, whose code then stays mapped, and leaves an allocator
//! that keeps its pages. A service that waits needs neither: what it needs of the code is mapped again
//! when it is reached, from the page cache.

use std::ffi::c_void;
use std::fs;

use rustix::mm::{Advice, madvise};

/// Gives it back. Where the kernel does not tell what is mapped, nothing happens.
pub fn give_back() {
    trim();
    if let Ok(maps) = fs::read_to_string("/proc/self/maps") {
        maps.lines().filter_map(code).for_each(unmap);
    }
}

/// From now on, memory that was taken in large pieces is given back when it is freed.
///
/// An allocator keeps them otherwise, for pieces that have other sizes then, and for each thread apart:
/// work takes more than it ever holds.
pub fn give_back_at_once() {
    bound();
}

/// A mapping of code: where it begins, and its length.
type Code = (usize, usize);

/// The code of a line of `/proc/self/maps`: mapped from a file, and not writable.
fn code(line: &str) -> Option<Code> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let from_file = rest.starts_with("r-xp ") && rest.contains(" /");
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (from_file && start < end).then(|| (start, end - start))
}

#[expect(unsafe_code, reason = "wraps a system call")]
fn unmap((start, len): Code) {
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: the pages are private ones of a file and were never written: the mapping is not
    // writable, and position-independent code has no relocations in it. The next access finds the
    // same bytes. A file that was replaced since then is another inode; this one stays.
    let advised = unsafe { madvise(start, len, Advice::LinuxDontNeed) };
    // Code that cannot be given back stays.
    let _ = advised;
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "wraps a call of the C library")]
fn trim() {
    // SAFETY: it may be called at any time from any thread.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// What is as long or longer gets pages of its own, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 << 10;

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "wraps a call of the C library")]
fn bound() {
    for (what, value) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_ARENA_MAX, 1)] {
        // SAFETY: it takes two numbers, and may be called at any time from any thread.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
fn bound() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files_is_given_back() {
        let name = "00001000-00003000 r-xp 00001000 fe:00 12    /usr/bin/a b";
        assert_eq!(code(name), Some((0x1000, 0x2000)));
        for other in [
            "00001000-00003000 r--p 00001000 fe:00 12    /usr/bin/a",
            "00001000-00003000 rwxp 00001000 fe:00 12    /usr/bin/a",
            "00001000-00003000 r-xs 00001000 fe:00 12    /usr/bin/a",
            "7ffc2000-7ffc4000 r-xp 00000000 00:00 0     [vdso]",
            "00001000-00003000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    /// What is resident of this kind, in KiB.
    fn resident(kind: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(kind));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse().unwrap()
    }

    #[test]
    fn large_pieces_are_given_back() {
        give_back_at_once();
        let resident = || resident("RssAnon:");
        let before = resident();
        // One that stays keeps the heap from getting shorter.
        let large = vec![1_u8; 20 << 20];
        let small = vec![1_u8; 1000];
        assert!(resident() > before + (19 << 10));
        drop(large);
        assert!(resident() < before + (5 << 10));
        drop(small);
    }

    #[test]
    fn work_goes_on_with_less() {
        let resident = || resident("RssFile:");
        let before = resident();
        give_back();
        let after = resident();
        assert!(after < before, "{before} kB became {after} kB");
        assert_eq!(format!("{:x}", 255), "ff");
    }
}

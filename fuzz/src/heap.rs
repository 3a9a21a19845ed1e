//! How much memory is taken, that of C libraries included.
//!
//! In: every call of the allocator, by standing in front of that of glibc. Out: the most that was held at
//! once while something ran. Stacks of threads are not counted.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Runs something; what came of it, and the most bytes that were held meanwhile and not before. Only one
/// may run at a time.
pub fn most_of<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let done = run();
    (done, MOST.load(Relaxed).saturating_sub(before) as u64)
}

/// What an applier takes beside what a patch's header declares, in bytes: channels, names, lists.
pub const SLACK: u64 = 512 << 10;

/// Whether anything is counted.
pub const IS_COUNTED: bool = cfg!(feature = "heap");

#[cfg(feature = "heap")]
mod allocator {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::Ordering::Relaxed;

    use super::{HELD, MOST};

    unsafe extern "C" {
        fn __libc_malloc(len: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, len: usize) -> *mut c_void;
        fn __libc_realloc(old: *mut c_void, len: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, len: usize) -> *mut c_void;
        fn __libc_free(old: *mut c_void);
        fn malloc_usable_size(of: *mut c_void) -> usize;
    }

    fn taken(new: *mut c_void) -> *mut c_void {
        // SAFETY: it was just given out.
        let len = unsafe { malloc_usable_size(new) };
        let held = HELD.fetch_add(len, Relaxed) + len;
        MOST.fetch_max(held, Relaxed);
        new
    }

    fn given_back(len: usize) {
        HELD.fetch_sub(len, Relaxed);
    }

    // SAFETY (all below): these are the functions of C, done by glibc's own.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(len: usize) -> *mut c_void {
        taken(unsafe { __libc_malloc(len) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(count: usize, len: usize) -> *mut c_void {
        taken(unsafe { __libc_calloc(count, len) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, len: usize) -> *mut c_void {
        let before = unsafe { malloc_usable_size(old) };
        let new = unsafe { __libc_realloc(old, len) };
        if !new.is_null() || len == 0 {
            given_back(before);
        }
        taken(new)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memalign(align: usize, len: usize) -> *mut c_void {
        taken(unsafe { __libc_memalign(align, len) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn aligned_alloc(align: usize, len: usize) -> *mut c_void {
        taken(unsafe { __libc_memalign(align, len) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, len: usize) -> c_int {
        const NO_MEMORY: c_int = 12;
        let new = taken(unsafe { __libc_memalign(align, len) });
        if new.is_null() && len > 0 {
            return NO_MEMORY;
        }
        unsafe { ptr::write(out, new) };
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(old: *mut c_void) {
        given_back(unsafe { malloc_usable_size(old) });
        unsafe { __libc_free(old) };
    }
}

#[cfg(all(test, feature = "heap"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_is_counted() {
        let ((), most) = most_of(|| {
            for len in [1 << 20, 3 << 20, 1 << 20] {
                std::hint::black_box(vec![1_u8; len]);
            }
        });
        assert!((3 << 20..4 << 20).contains(&most), "{most}");
    }

    #[test]
    fn what_libraries_of_c_hold_is_counted() {
        let (stream, most) = most_of(|| {
            let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
            options.dict_size(4 << 20);
            let mut filters = liblzma::stream::Filters::new();
            filters.lzma2(&options);
            liblzma::stream::Stream::new_raw_encoder(&filters)
        });
        assert!(stream.is_ok() && most > 4 << 20, "{most}");
    }
}

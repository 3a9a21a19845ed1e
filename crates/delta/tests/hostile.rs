//! Archives that no honest tool writes: no panic, no allocation that the archive chooses, and
//! what `check` accepts stays in the root.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::io;

use proptest::prelude::*;
use system_image_delta::{
    Kind, LeaveOut, Limits, Privileges, ReadError, Reader, Root, apply, check,
};
use system_image_testkit::tree::Tree;

fn small() -> Limits {
    Limits {
        bytes: 1 << 20,
        members: 100,
        name: 200,
        extension: 4096,
    }
}

fn sample() -> Vec<u8> {
    let long = "n".repeat(150);
    Tree::new()
        .dir("d")
        .file("d/f", vec![b'x'; 700])
        .xattr("d/f", "user.a", "1")
        .file(&long, "y")
        .hard_link("d/h", &long)
        .symlink("d/s", &long)
        .fifo("p")
        .tar()
}

/// Rewrites the checksum of the header at `at`, so that a change behind it is looked at.
fn reseal(archive: &mut [u8], at: usize) {
    if let Some(block) = archive.get_mut(at..at + 512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn read_all(archive: &[u8]) -> Result<u64, ReadError> {
    let mut reader = Reader::new(archive, small());
    let mut sum = 0;
    while let Some(_header) = reader.next_header()? {
        sum += io::copy(&mut reader, &mut io::sink())?;
    }
    Ok(sum)
}

/// The error for an archive whose first header says `field`.
fn with_field(at: usize, field: &[u8]) -> ReadError {
    let mut archive = sample();
    archive[at..at + field.len()].copy_from_slice(field);
    reseal(&mut archive, 0);
    read_all(&archive).unwrap_err()
}

#[test]
fn limits_are_errors() {
    // The first member is a directory; make it a file of 2 MiB, a long name, a pax block.
    let file_of = |flag: &[u8], size: &[u8]| {
        let mut archive = Tree::default().file("f", "").tar();
        archive[124..124 + size.len()].copy_from_slice(size);
        archive[156..157].copy_from_slice(flag);
        reseal(&mut archive, 0);
        read_all(&archive).unwrap_err()
    };
    for (flag, size) in [
        (&b"0"[..], &b"00010000000\0"[..]),
        (b"0", b"77777777777\0"),
        (b"L", b"00000020000\0"),
        (b"K", b"00000020000\0"),
        (b"x", b"77777777777\0"),
        (b"g", b"00000020000\0"),
    ] {
        let error = file_of(flag, size);
        assert!(matches!(error, ReadError::Limit { .. }), "{error:?}");
    }
    // A size beyond 2⁶³ is nonsense rather than large.
    let negative = file_of(b"0", &[0xff; 12]);
    assert!(
        matches!(negative, ReadError::Malformed { .. }),
        "{negative:?}"
    );
    let many = (0..101).fold(Tree::default(), |tree, n| tree.dir(n.to_string()));
    assert!(matches!(
        read_all(&many.tar()),
        Err(ReadError::Limit {
            what: "members",
            ..
        })
    ));
    let long = Tree::default().file("n".repeat(300), "");
    assert!(matches!(
        read_all(&long.tar()),
        Err(ReadError::Limit { .. })
    ));
}

#[test]
fn a_crowd_of_extended_headers_is_bounded_as_a_whole() {
    let one = Tree::default()
        .file("f", "")
        .xattr("f", "user.a", vec![b'x'; 1500])
        .tar();
    let extended = &one[..512 + 1536];
    let crowd = [extended, extended, extended, &one].concat();
    assert!(matches!(read_all(&crowd), Err(ReadError::Limit { .. })));
}

#[test]
fn what_has_two_readings_is_refused() {
    // The first member is a directory.
    assert!(
        matches!(
            with_field(124, b"00000000001\0"),
            ReadError::Malformed { .. }
        ),
        "its data"
    );
    assert!(
        matches!(
            with_field(108, b"\x80\0\0\0\xff\xff\xff\xff"),
            ReadError::Malformed { .. }
        ),
        "owner −1"
    );
    assert!(
        matches!(with_field(156, b"M"), ReadError::Unsupported { .. }),
        "second volume"
    );
    let mut trailing = sample();
    *trailing.last_mut().unwrap() = 1;
    assert!(
        matches!(read_all(&trailing), Err(ReadError::Malformed { .. })),
        "a second end"
    );
}

#[test]
fn an_archive_cut_anywhere_is_truncated() {
    let archive = sample();
    let end = archive
        .iter()
        .rposition(|&b| b != 0)
        .unwrap()
        .next_multiple_of(512)
        + 512;
    for cut in 0..end {
        let error = check(&archive[..cut], Limits::default(), &mut LeaveOut).unwrap_err();
        let text = format!("{error:?}");
        assert!(
            text.contains("Truncated") || text.contains("UnexpectedEof"),
            "{cut}: {text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_header_with_a_right_checksum_panics(
        mut block in proptest::collection::vec(any::<u8>(), 512),
        flag in prop::sample::select(b"\x000123456LKSxg7".to_vec()),
        size in 0..2000_u32,
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9'], 0..2048),
    ) {
        block[100..136].copy_from_slice(format!("0000644\x000000000\x000000000\x00{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = flag;
        reseal(&mut block, 0);
        let _ = read_all(&[block, rest].concat());
    }

    #[test]
    fn a_changed_archive_is_refused_or_stays_in_the_root(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut archive = sample();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
            reseal(&mut archive, at / 512 * 512);
        }
        let _ = read_all(&archive);
        let keep = tempfile::tempdir().unwrap();
        let system = keep.path().join("system");
        std::fs::create_dir(&system).unwrap();
        let root = Root::open(&system).unwrap();
        let checked = check(&archive[..], small(), &mut LeaveOut);
        let applied = apply(&archive[..], small(), &root, Privileges::User, &mut LeaveOut);
        prop_assert!(checked.is_ok() || applied.is_err());
        prop_assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_pax_block_is_read_or_refused(records in "([0-9]{1,3} (path|size|mtime|uid|GNU\\.sparse\\.(major|map|realsize|offset|numblocks)|SCHILY\\.xattr\\.a|LIBARCHIVE\\.xattr\\.%4)=[-0-9.,%A=]{0,9}\n){0,4}") {
        let tree = Tree::default().member("x", Kind::File { size: records.len() as u64 }, 0o644, records.into_bytes());
        let mut archive = tree.tar();
        archive[156] = b'x';
        reseal(&mut archive, 0);
        let data = archive.len().min(1024);
        let archive = [&archive[..data], &sample()].concat();
        let _ = read_all(&archive);
    }
}

//! Files with holes whose maps lie.

use crate::case::Is::File;
use crate::case::{Case, applied, refused};
use crate::raw::Entry;

const MAP: &str = "sparse map";

pub(crate) fn cases() -> Vec<Case> {
    [old(), by_records(), by_text()].concat()
}

/// The old GNU form: pairs in the header, and the real size.
fn old() -> Vec<Case> {
    let member = |pairs: &[(u64, u64)], size: u64| {
        let entry = Entry::new("system/x", b'S', vec![b'x'; 1024]);
        let put = |entry: Entry, (n, &(offset, len)): (usize, &(u64, u64))| {
            let at = 386 + 24 * n;
            entry.octal(at, 12, offset).octal(at + 12, 12, len)
        };
        pairs
            .iter()
            .enumerate()
            .fold(entry, put)
            .octal(483, 12, size)
    };
    vec![
        applied(
            "with holes",
            &[("cache/system/x", File(b"xxx"))],
            &[member(&[(0, 512), (8192, 512)], 16_384)],
        ),
        refused("overlapping", MAP, &[member(&[(0, 512), (511, 512)], 8192)]),
        refused("going back", MAP, &[member(&[(4096, 512), (0, 512)], 8192)]),
        refused(
            "beyond the size",
            MAP,
            &[member(&[(0, 512), (8192, 512)], 8192)],
        ),
        refused(
            "more than is stored",
            MAP,
            &[member(&[(0, 512), (4096, 1024)], 8192)],
        ),
        refused("less than is stored", MAP, &[member(&[(0, 512)], 8192)]),
        refused(
            "a negative offset",
            MAP,
            &[member(&[(0, 1024)], 8192).put(386, [0xff; 12])],
        ),
        refused(
            "the end of all numbers",
            MAP,
            &[member(&[(0, 512)], 8192)
                .put(410, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
                .put(422, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")],
        ),
        refused(
            "terabytes",
            "bytes of content",
            &[member(&[(0, 1024)], 1 << 32).put(483, b"\x80\0\0\0\0\0\x40\0\0\0\0\0")],
        ),
        refused(
            "a negative size",
            MAP,
            &[member(&[(0, 1024)], 0).put(483, [0xff; 12])],
        ),
        refused(
            "continued by data",
            MAP,
            &[member(&[(0, 512)], 8192).put(482, [1])],
        ),
    ]
}

/// Versions 0.0 and 0.1: pairs as pax records.
fn by_records() -> Vec<Case> {
    let member = |records: &[(&str, &str)]| {
        let records: Vec<_> = records
            .iter()
            .map(|(key, value)| (*key, value.as_bytes()))
            .collect();
        Entry::file("system/x", vec![b'x'; 1024]).pax(&records)
    };
    let (size, blocks, map) = ("GNU.sparse.size", "GNU.sparse.numblocks", "GNU.sparse.map");
    let (offset, len) = ("GNU.sparse.offset", "GNU.sparse.numbytes");
    vec![
        applied(
            "0.1 with holes",
            &[("cache/system/x", File(b"\0\0\0"))],
            &[member(&[(size, "8192"), (blocks, "1"), (map, "4096,1024")])],
        ),
        refused(
            "0.1 without a size",
            MAP,
            &[member(&[(blocks, "1"), (map, "0,1024")])],
        ),
        refused(
            "0.1 going back",
            MAP,
            &[member(&[
                (size, "8192"),
                (blocks, "2"),
                (map, "4096,512,0,512"),
            ])],
        ),
        refused(
            "0.1 beyond the size",
            MAP,
            &[member(&[(size, "1023"), (blocks, "1"), (map, "0,1024")])],
        ),
        refused(
            "0.1 of half a pair",
            MAP,
            &[member(&[
                (size, "8192"),
                (blocks, "1"),
                (map, "0,1024,4096"),
            ])],
        ),
        refused(
            "0.1 of words",
            MAP,
            &[member(&[(size, "8192"), (blocks, "1"), (map, "0,x")])],
        ),
        refused(
            "0.1 of the largest numbers",
            MAP,
            &[member(&[
                (size, "8192"),
                (map, "9999999999999999999,9999999999999999999"),
            ])],
        ),
        refused(
            "0.0 without its pairs",
            MAP,
            &[member(&[(size, "8192"), (blocks, "1000000000")])],
        ),
        refused(
            "0.0 with a length too much",
            MAP,
            &[member(&[
                (size, "8192"),
                (blocks, "1"),
                (offset, "0"),
                (len, "1024"),
                (len, "1"),
            ])],
        ),
        refused(
            "0.0 of a billion terabytes",
            "bytes of content",
            &[member(&[
                (size, "9000000000000000000"),
                (blocks, "1"),
                (offset, "0"),
                (len, "1024"),
            ])],
        ),
        refused(
            "of a version to come",
            "unknown version",
            &[member(&[
                ("GNU.sparse.major", "2"),
                ("GNU.sparse.realsize", "8192"),
            ])],
        ),
    ]
}

/// Version 1.0: the map is text in front of the data.
fn by_text() -> Vec<Case> {
    let member = |size: &str, map: &str| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend([b'x'; 1024]);
        Entry::file("system/x", content).pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
    };
    let endless = "1\n".repeat(300_000);
    vec![
        applied(
            "1.0 with holes",
            &[("cache/system/x", File(b"\0\0\0"))],
            &[member("8192", "1\n4096\n1024\n")],
        ),
        refused(
            "1.0 of a billion entries",
            MAP,
            &[member("8192", "1000000000\n0\n0\n0\n0\n")],
        ),
        refused(
            "1.0 of more entries than it says",
            MAP,
            &[member("8192", "1\n0\n512\n4096\n512\n")],
        ),
        refused(
            "1.0 of fewer entries than it says",
            MAP,
            &[member("8192", "3\n0\n1024\n")],
        ),
        refused(
            "1.0 going back",
            MAP,
            &[member("8192", "2\n4096\n512\n0\n512\n")],
        ),
        refused(
            "1.0 beyond the size",
            MAP,
            &[member("1000", "1\n0\n1024\n")],
        ),
        refused("1.0 without numbers", MAP, &[member("8192", "one\nmap\n")]),
        refused(
            "1.0 of a number that does not end",
            MAP,
            &[member("8192", &"1".repeat(512))],
        ),
        refused(
            "1.0 of a map that does not end",
            MAP,
            &[member("8192", &format!("131072\n0\n0\n{endless}"))],
        ),
        refused(
            "1.0 of terabytes",
            "bytes of content",
            &[member("9000000000000000000", "1\n0\n1024\n")],
        ),
        applied(
            "a link with a map",
            &[],
            &[Entry::link("system/x", "y")
                .pax(&[("GNU.sparse.map", b"0,1024"), ("GNU.sparse.size", b"4096")])],
        ),
    ]
}

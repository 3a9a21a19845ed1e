//! Tarballs that are cut, that go on, that are something else, or that are too much.

use system_image_testkit::xz;

use crate::BYTES;
use crate::case::Is::{File, Nothing};
use crate::case::{Case, End, of, packed, refused};
use crate::raw::{Entry, archive, without_end};

pub(crate) fn cases() -> Vec<Case> {
    [others(), cut(), going_on(), too_much()].concat()
}

fn good() -> Vec<Entry> {
    vec![
        Entry::file("system/a", "a"),
        Entry::dir("system/etc"),
        Entry::file("system/etc/build", vec![b'2'; 3000]),
    ]
}

fn installs(names: &[&'static str]) -> End {
    End::Applied(names.iter().map(|name| (*name, File(b"a"))).collect())
}

fn others() -> Vec<Case> {
    const NO_XZ: &str = "cannot read the archive";
    let tar = archive(&good());
    // An empty `gzip` file, and the start of the older form of `xz`.
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0".to_vec();
    let lzma = [b"\x5d\0\0\x80\0".as_slice(), &[0xff; 8], &[0; 100]].concat();
    vec![
        packed("not compressed", tar.clone(), End::Refused(NO_XZ)),
        packed("compressed by gzip", gzip, End::Refused(NO_XZ)),
        packed("compressed by lzma", lzma, End::Refused(NO_XZ)),
        packed("no byte at all", Vec::new(), End::Refused("")),
        packed(
            "nothing, compressed",
            xz(b""),
            End::Refused("ends too early"),
        ),
        packed("compressed twice", xz(&xz(&tar)), End::Refused("")),
        packed(
            "noise, compressed",
            xz(&[0xa5; 5000]),
            End::Refused("header checksum"),
        ),
        of(
            "nothing but its end",
            archive(&[]),
            End::Applied(Vec::new()),
        ),
    ]
}

fn cut() -> Vec<Case> {
    let tar = archive(&good());
    let whole = xz(&tar);
    let mut cases = vec![of(
        "without its end",
        without_end(&good()),
        End::Refused("ends too early"),
    )];
    for cut in [1, 511, 512, 700, 1024, 1536, 2048, 4000] {
        cases.push(of(
            "cut",
            tar[..cut].to_vec(),
            End::Refused("ends too early"),
        ));
    }
    for cut in [
        1,
        6,
        12,
        30,
        whole.len() / 2,
        whole.len() - 20,
        whole.len() - 1,
    ] {
        cases.push(packed(
            "cut and signed so",
            whole[..cut].to_vec(),
            End::Refused(""),
        ));
    }
    for at in [
        3,
        8,
        15,
        40,
        whole.len() / 2,
        whole.len() - 10,
        whole.len() - 1,
    ] {
        let mut spoiled = whole.clone();
        spoiled[at] ^= 0x10;
        cases.push(packed("spoiled and signed so", spoiled, End::Refused("")));
    }
    cases
}

fn going_on() -> Vec<Case> {
    let tar = archive(&good());
    let (left, right) = tar.split_at(700);
    let hidden = archive(&[Entry::file("../outside/x", "hostile")]);
    vec![
        packed(
            "words behind it",
            [xz(&tar), b"and so on".to_vec()].concat(),
            End::Refused("cannot read the archive"),
        ),
        packed(
            "zeros behind it",
            [xz(&tar), vec![0; 8]].concat(),
            installs(&["cache/system/a"]),
        ),
        packed(
            "in two streams",
            [xz(left), vec![0; 4], xz(right)].concat(),
            installs(&["cache/system/a"]),
        ),
        packed(
            "an archive behind it",
            [xz(&tar), xz(&hidden)].concat(),
            End::Refused("data after the archive's end"),
        ),
        packed(
            "many streams",
            tar.chunks(64).flat_map(xz).collect(),
            installs(&["cache/system/a"]),
        ),
        of(
            "words behind its end",
            [tar.clone(), b"and so on".to_vec()].concat(),
            End::Refused("data after the archive's end"),
        ),
        of(
            "without padding",
            tar[..tar.len() - 512].to_vec(),
            installs(&["cache/system/a"]),
        ),
    ]
}

fn too_much() -> Vec<Case> {
    let limit = usize::try_from(BYTES).unwrap();
    let endless = [archive(&good()), vec![0; limit]].concat();
    let filling = Entry::file("system/bomb", vec![0; limit / 2 + 1]);
    let many: Vec<_> = (0..=crate::MEMBERS)
        .map(|n| Entry::dir(format!("system/d{n}")))
        .collect();
    vec![
        of("zeros without end", endless, End::Refused("bytes")),
        refused(
            "a file too large",
            "bytes of content",
            &[Entry::file("system/bomb", "x").size(BYTES)],
        ),
        refused(
            "files too large together",
            "bytes of content",
            &[filling.clone(), filling],
        ),
        refused("too many members", "members", &many),
        packed(
            "a dictionary of four gigabytes",
            with_dictionary(40),
            End::Refused("cannot read the archive"),
        ),
        packed(
            "a dictionary of 128 megabytes",
            with_dictionary(30),
            End::Refused("cannot read the archive"),
        ),
        packed(
            "the dictionary of `xz -9`",
            with_dictionary(28),
            installs(&["cache/system/a"]),
        ),
        packed("an index of exabytes", with_size(), End::Refused("")),
        of(
            "images larger than their partition",
            archive(&[Entry::file("partitions/boot.img", vec![b'x'; 5000])]),
            End::Refused("its partition only"),
        ),
        of(
            "images larger than anything",
            archive(&[Entry::file("partitions/boot.img", "x").put(124, "77777777777\0")]),
            End::Refused("bytes of content"),
        ),
        of(
            "a hole for a partition",
            archive(&[hole("partitions/boot.img", "1000000")]),
            End::Refused("its partition only"),
        ),
        of(
            "a hole in user data",
            archive(&[hole("data/hole", "1000000")]),
            End::Applied(vec![("data/hole", File(&[0; 512])), ("data/x", Nothing)]),
        ),
    ]
}

fn hole(name: &str, size: &str) -> Entry {
    Entry::file(name, "").pax(&[
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", b"0"),
    ])
}

/// A good tarball whose block asks for a dictionary of this size class.
fn with_dictionary(class: u8) -> Vec<u8> {
    let mut tarball = xz(&archive(&good()));
    // The header of the first block: its size in fours, flags, one filter with one byte of properties.
    let len = (usize::from(tarball[12]) + 1) * 4;
    let header = &mut tarball[12..12 + len];
    let filter = header
        .windows(2)
        .position(|pair| pair == [0x21, 1])
        .unwrap();
    header[filter + 2] = class;
    let sum = crc32(&header[..len - 4]);
    header[len - 4..].copy_from_slice(&sum.to_le_bytes());
    tarball
}

/// A tarball whose index, which is read for planning, has a block of 2⁶² bytes.
fn with_size() -> Vec<u8> {
    let mut index = vec![0, 1, 24];
    index.extend([0x80; 8]);
    index.push(0x40);
    index.resize(index.len().next_multiple_of(4), 0);
    let sum = crc32(&index);
    index.extend(sum.to_le_bytes());
    let mut footer = u32::try_from(index.len() / 4 - 1)
        .unwrap()
        .to_le_bytes()
        .to_vec();
    footer.extend([0, 1]);
    let sum = crc32(&footer);
    let whole = xz(&archive(&good()));
    [
        &whole[..12 + 24],
        &index,
        &sum.to_le_bytes(),
        &footer,
        b"YZ",
    ]
    .concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

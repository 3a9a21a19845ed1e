//! Headers that contradict themselves, numbers beyond everything, attributes that nobody can have.

use crate::case::Is::{BlockDevice, File};
use crate::case::{Case, End, applied, like_tar, of, refused, unfit};
use crate::raw::{Entry, archive, records_of};

pub(crate) fn cases() -> Vec<Case> {
    [conflicts(), numbers(), kinds(), attributes()].concat()
}

fn conflicts() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    let global = |key, value: &[u8]| Entry::new("global", b'g', records_of(&[(key, value)]));
    let block = |text: &[u8]| file("system/x").after(&Entry::new("pax", b'x', text));
    let crowd: Vec<(String, Vec<u8>)> = (0..3)
        .map(|n| (format!("SCHILY.xattr.user.{n}"), vec![b'x'; 400_000]))
        .collect();
    let crowd = crowd.iter().fold(file("system/x"), |entry, (key, value)| {
        entry.pax(&[(key.as_str(), value.as_slice())])
    });
    vec![
        like_tar(
            "a long name and a pax path",
            &[file("system/a")
                .long(b'L', "system/b")
                .pax(&[("path", b"system/c")])],
        ),
        like_tar(
            "two pax paths",
            &[file("system/a").pax(&[("path", b"system/b"), ("path", b"system/c")])],
        ),
        like_tar(
            "two pax blocks",
            &[file("system/a")
                .pax(&[("path", b"system/b")])
                .pax(&[("path", b"system/c")])],
        ),
        like_tar(
            "two sizes",
            &[
                file("system/a").size(0o777).pax(&[("size", b"7")]),
                Entry::file("system/b", "b"),
            ],
        ),
        refused(
            "a global path",
            "settings for all later members",
            &[global("path", b"system/x"), file("system/y")],
        ),
        refused(
            "a global owner",
            "settings for all later members",
            &[global("uid", b"0"), file("system/y")],
        ),
        like_tar(
            "a global comment",
            &[global("comment", b"made by hand"), file("system/x")],
        ),
        refused(
            "an extended header before nothing",
            "ends too early",
            &[Entry::new("pax", b'x', records_of(&[("path", b"x")]))],
        ),
        refused(
            "a long name before nothing",
            "ends too early",
            &[Entry::new("x", b'L', "system/x\0")],
        ),
        refused(
            "a record that is longer than its block",
            "extended header",
            &[block(b"999 path=x\n")],
        ),
        refused(
            "a record that is shorter than its length",
            "extended header",
            &[block(b"3 path=x\n")],
        ),
        refused(
            "a record without value",
            "extended header",
            &[block(b"9 pathxx\n")],
        ),
        refused(
            "a record without end",
            "extended header",
            &[block(b"8 path=xx")],
        ),
        refused(
            "an extended header of two megabytes",
            "bytes in an extended header",
            &[block(&vec![b'x'; 2 << 20])],
        ),
        refused(
            "extended headers of a megabyte together",
            "bytes in an extended header",
            &[crowd],
        ),
        refused(
            "a name of two megabytes",
            "bytes in an extended header",
            &[file("x").long(b'L', vec![b'x'; 2 << 20])],
        ),
        refused(
            "a wrong checksum",
            "header checksum",
            &[file("system/x"), file("system/y").unsealed()],
        ),
        of(
            "zeros in the middle",
            [archive(&[file("system/x")]), archive(&[file("../x")])].concat(),
            End::Refused("data after the archive's end"),
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let file = || Entry::file("system/x", "x");
    let negative = [0xff; 12];
    let beyond = [0x8f; 12];
    vec![
        refused("a negative size", "size", &[file().put(124, negative)]),
        refused(
            "a size beyond all numbers",
            "size",
            &[file().put(124, beyond)],
        ),
        refused(
            "a size of letters",
            "size",
            &[file().put(124, "0000000000z\0")],
        ),
        refused(
            "a size of eight gigabytes",
            "bytes of content",
            &[file().put(124, "77777777777\0")],
        ),
        refused(
            "a size beyond the archive",
            "ends too early",
            &[file().size(1 << 20)],
        ),
        refused(
            "a negative size by pax",
            "number in an extended header",
            &[file().pax(&[("size", b"-1")])],
        ),
        refused(
            "the largest size by pax",
            "bytes of content",
            &[file().pax(&[("size", b"9223372036854775807")])],
        ),
        refused(
            "a size beyond all numbers by pax",
            "number",
            &[file().pax(&[("size", b"99999999999999999999")])],
        ),
        refused(
            "the owner that means none",
            "owner",
            &[file().put(108, b"\x80\0\0\0\xff\xff\xff\xff")],
        ),
        refused(
            "the owner that means none, by pax",
            "owner",
            &[file().pax(&[("uid", b"4294967295")])],
        ),
        refused(
            "a group beyond all numbers",
            "owner",
            &[file().pax(&[("gid", b"4294967296")])],
        ),
        refused("a negative owner", "owner", &[file().put(108, [0xff; 8])]),
        like_tar(
            "the largest owner",
            &[file().pax(&[("uid", b"4294967294"), ("gid", b"4294967294")])],
        )
        .for_root(),
        refused("a mode of letters", "mode", &[file().put(100, "rw-r--r-")]),
        like_tar(
            "bits beyond the mode",
            &[
                file().mode(0o177_644),
                Entry::dir("system/d").mode(0o40_755),
            ],
        ),
        like_tar("all bits of the mode", &[file().mode(0o7777)]),
        applied(
            "a time beyond any clock",
            &[("cache/system/x", File(b"x"))],
            &[file().pax(&[("mtime", b"9223372036854775807.999999999")])],
        ),
        applied(
            "a time before any clock",
            &[("cache/system/x", File(b"x"))],
            &[file().pax(&[("mtime", b"-9223372036854775807.5")])],
        ),
        applied(
            "such times of a directory and a link",
            &[],
            &[
                Entry::dir("system/d").pax(&[("mtime", b"9223372036854775807")]),
                Entry::link("system/l", "x")
                    .put(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            ],
        ),
        refused(
            "a time beyond all numbers",
            "time",
            &[file().pax(&[("mtime", b"9223372036854775808")])],
        ),
        refused(
            "a time that is none",
            "modification time",
            &[file().put(136, beyond)],
        ),
    ]
}

fn kinds() -> Vec<Case> {
    let of_kind = |flag| [Entry::new("system/x", flag, "")];
    vec![
        refused("a second volume", "unknown type", &of_kind(b'M')),
        refused("a volume's name", "unknown type", &of_kind(b'V')),
        refused("a list of an old directory", "unknown type", &of_kind(b'D')),
        refused("a kind that nobody knows", "unknown type", &of_kind(b'Z')),
        refused(
            "a directory with content",
            "data of a member that has none",
            &[Entry::new("system/x", b'5', "content")],
        ),
        refused(
            "a link with content",
            "data of a member that has none",
            &[Entry::link("system/x", "y").size(512)],
        ),
        refused(
            "a pipe with content",
            "data of a member that has none",
            &[Entry::new("system/x", b'6', "content")],
        ),
        like_tar(
            "a contiguous file",
            &[Entry::new("system/x", b'7', "content")],
        ),
        like_tar(
            "the oldest flag of a file",
            &[Entry::new("system/x", 0, "content")],
        ),
        like_tar(
            "the oldest form of a directory",
            &[Entry::new("system/x/", 0, "")],
        )
        .for_root(),
        like_tar("a device", &[Entry::device("system/b")]).for_root(),
        applied(
            "a device that is written over",
            &[("cache/system/b", File(b"x"))],
            &[Entry::device("system/b"), Entry::file("system/b", "x")],
        ),
        applied(
            "a second name of a device that is written over",
            &[
                ("cache/system/b", BlockDevice),
                ("cache/system/h", File(b"x")),
            ],
            &[
                Entry::device("system/b"),
                Entry::hard("system/h", "system/b"),
                Entry::file("system/h", "x"),
            ],
        )
        .for_root(),
        refused(
            "a device of an impossible number",
            "device number",
            &[Entry::device("system/b").put(329, "7777777\0")],
        ),
        refused(
            "a device of a negative number",
            "device number",
            &[Entry::device("system/b").put(337, [0xff; 8])],
        ),
        like_tar(
            "a pipe that is written over",
            &[Entry::fifo("system/p"), Entry::file("system/p", "x")],
        ),
        unfit(
            "a file below a pipe",
            "File exists",
            &[Entry::fifo("system/p"), Entry::file("system/p/x", "x")],
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let file = |key: &str, value: &[u8]| [Entry::file("system/x", "x").pax(&[(key, value)])];
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    vec![
        refused(
            "a value of 70 kilobytes",
            "attribute",
            &file("SCHILY.xattr.user.a", &[b'x'; 70_000]),
        ),
        refused("a name of 256 bytes", "attribute", &file(&long, b"x")),
        refused(
            "an attribute without name",
            "attribute name",
            &file("SCHILY.xattr.", b"x"),
        ),
        refused(
            "a name with a NUL",
            "attribute name",
            &file("LIBARCHIVE.xattr.user.a%00b", b"eA"),
        ),
        refused(
            "a name that is cut short",
            "attribute name",
            &file("LIBARCHIVE.xattr.user.a%4", b"eA"),
        ),
        refused(
            "a value that is no base 64",
            "attribute value",
            &file("LIBARCHIVE.xattr.user.a", b"!"),
        ),
        refused(
            "a class that nobody knows",
            "attribute",
            &file("SCHILY.xattr.hostile", b"x"),
        ),
        refused(
            "an attribute that no link can have",
            "attribute",
            &[Entry::link("system/l", "x").pax(&[("SCHILY.xattr.user.a", b"x")])],
        ),
        unfit(
            "capabilities that are none",
            "security.capability",
            &file("SCHILY.xattr.security.capability", b"x"),
        )
        .for_root(),
        unfit(
            "an attribute of the kernel's own",
            "system.hostile",
            &file("SCHILY.xattr.system.hostile", b"x"),
        )
        .for_root(),
        applied(
            "a strange name",
            &[("cache/system/x", File(b"x"))],
            &file("SCHILY.xattr.trusted.\x1b[2J\n=", b"\0\xff"),
        ),
        applied(
            "a label",
            &[("cache/system/x", File(b"x"))],
            &file("SCHILY.xattr.trusted.a", b"x"),
        ),
    ]
}

//! What archives bring beside the system: lists of removals, images, files for user data.

use crate::case::Is::{BlockDevice, Directory, File, Link, Nothing};
use crate::case::{Case, End, applied, confined, of, refused};
use crate::raw::{Entry, archive};

pub(crate) fn cases() -> Vec<Case> {
    [removed(), images(), data()].concat()
}

fn list(lines: impl Into<Vec<u8>>) -> Entry {
    Entry::file("removed", lines)
}

fn removed() -> Vec<Case> {
    const FIRST: &str = "must be the first member";
    let lines = |name, lines: &[u8], words| refused(name, words, &[list(lines)]);
    let kept: &[(&str, crate::case::Is)] = &[
        ("data/own", File(b"own")),
        ("boot", File(b"old")),
        ("cache/system/etc/build", File(b"1\n")),
    ];
    let longer = format!("system/{}\n", "n".repeat(256));
    vec![
        lines("a line that climbs", b"system/../../outside\n", "`..` part"),
        lines("a line that is absolute", b"/etc\n", "it is absolute"),
        lines(
            "a line that is absolute below `system`",
            b"system/x\n//etc/x\n",
            "it is absolute",
        ),
        lines("the whole system", b"system\n", "remove the whole system"),
        lines(
            "the whole system and a slash",
            b"system/\n",
            "remove the whole system",
        ),
        lines(
            "the whole system by dots",
            b"./system/./\n",
            "remove the whole system",
        ),
        lines("the root", b".\n", "remove the whole system"),
        lines("a NUL in a line", b"system/a\0b\n", "NUL"),
        lines("a line of escapes", b"../\x1b[2J\x07\n", "`..` part"),
        lines(
            "a line with a part of 256 bytes",
            longer.as_bytes(),
            "longer than 255 bytes",
        ),
        lines(
            "the staging directory in a line",
            b"system/.system-image\n",
            "reserved",
        ),
        lines(
            "below the staging directory in a line",
            b"system/.system-image/new/etc\n",
            "reserved",
        ),
        lines(
            "what is incomplete in a line",
            b"system/etc/.system-image.part\n",
            "reserved",
        ),
        refused(
            "a list of 20 megabytes",
            "too long",
            &[list(vec![b'\n'; 20 << 20])],
        ),
        refused(
            "a list that says 20 megabytes",
            "too long",
            &[list("").size(20 << 20)],
        ),
        refused(
            "two lists",
            FIRST,
            &[list("system/lib\n"), list("system/etc\n")],
        ),
        refused(
            "a late list",
            FIRST,
            &[Entry::file("system/a", "a"), list("system/etc\n")],
        ),
        refused(
            "a late list of another name",
            FIRST,
            &[Entry::dir("system"), Entry::file(".//removed/.", "x")],
        ),
        refused(
            "a list that is a directory",
            "is not a file",
            &[Entry::dir("removed")],
        ),
        refused(
            "a list that is a link",
            "is not a file",
            &[Entry::link("removed", "data/list")],
        ),
        refused(
            "a list that is a hard link",
            "is not a file",
            &[Entry::hard("removed", "system/etc/build")],
        ),
        refused(
            "a list that is a pipe",
            "is not a file",
            &[Entry::fifo("removed")],
        ),
        applied(
            "lines that are not of the system",
            kept,
            &[list("data/own\npartitions/boot.img\nboot\nrecovery\n")],
        ),
        applied(
            "patterns",
            kept,
            &[list(
                "system/*\nsystem/etc/b?ild\nsystem/[a-z]*\nsystem/etc/build -rf\n",
            )],
        ),
        applied(
            "nothing, and what is below it",
            kept,
            &[list("\n\nsystem/no/thing\nsystem/etc/build/x\n\n")],
        ),
        applied(
            "through links of the image",
            &[
                ("cache/system/usr/lib/x", Nothing),
                ("cache/system/outside/kept", Nothing),
                ("cache/system/out", Link("/outside")),
                ("cache/outside/kept", File(b"kept")),
            ],
            &[list("system/lib/x\nsystem/out/kept")],
        ),
        applied(
            "a link, not what it leads to",
            &[
                ("cache/system/out", Nothing),
                ("cache/system/outside/kept", File(b"kept")),
            ],
            &[list(*b"system/out/\nsystem/\xff\n")],
        ),
        applied(
            "what ext4 keeps for itself in a line",
            kept,
            &[list("system/lost+found\nsystem/lost+found/x\n")],
        ),
    ]
}

fn images() -> Vec<Case> {
    let untouched: &[(&str, crate::case::Is)] = &[("boot", File(b"old"))];
    let image = |content: &str| Entry::file("partitions/boot.img", content);
    // Android's sparse form: magic, version, sizes of headers, then size of a block, blocks, chunks.
    let sparse = |block: u32, blocks: u32, chunks: u32| -> Vec<u8> {
        let start = b"\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0".to_vec();
        let numbers = [block, blocks, chunks, 0].map(u32::to_le_bytes).concat();
        [start, numbers].concat()
    };
    let spoiled = |name, block, blocks, chunks| {
        let entry = Entry::file("partitions/boot.img", sparse(block, blocks, chunks));
        of(name, archive(&[entry]), End::Refused("boot"))
    };
    vec![
        applied(
            "an image that is a link",
            untouched,
            &[Entry::link("partitions/boot.img", "../data/own")],
        ),
        applied(
            "an image that is a link to a partition",
            untouched,
            &[Entry::link("partitions/boot.img", "/dev/sda")],
        ),
        applied(
            "an image that is a hard link",
            untouched,
            &[Entry::hard("partitions/boot.img", "data/own")],
        ),
        applied(
            "an image that is a directory",
            untouched,
            &[
                Entry::dir("partitions/boot.img"),
                Entry::file("partitions/boot.img/x", "x"),
            ],
        ),
        applied(
            "an image that is a device",
            untouched,
            &[Entry::device("partitions/boot.img")],
        ),
        applied(
            "an image that is a pipe",
            untouched,
            &[Entry::fifo("partitions/boot.img")],
        ),
        applied(
            "images of strange names",
            untouched,
            &[
                Entry::file("partitions/.img", "x"),
                Entry::file("partitions/sub/boot.img", "x"),
                Entry::file("partitions/boot", "x"),
                Entry::file("partitions/boot.img.img", "x"),
                Entry::file("partitions/BOOT.img", "x"),
                Entry::file(b"partitions/\xff.img", "x"),
            ],
        ),
        applied(
            "an image twice",
            &[("boot", File(b"second\0\0"))],
            &[image("the first one"), image("second\0\0")],
        ),
        applied(
            "an image, then a link of its name",
            &[("boot", File(b"first"))],
            &[image("first"), Entry::link("partitions/boot.img", "/etc")],
        ),
        refused(
            "an image for nothing",
            "/nowhere",
            &[image("kernel"), Entry::file("partitions/gone.img", "x")],
        ),
        spoiled(
            "sparse blocks of four gigabytes",
            0xffff_fffc,
            0xffff_ffff,
            0,
        ),
        spoiled("sparse blocks that are not there", 4096, 1, 1),
        spoiled("sparse blocks of no size", 0, 1, 1),
        spoiled("four billion sparse chunks", 4096, 1, 0xffff_ffff),
    ]
}

/// User data belongs to the user: an archive may bring files, and lead nowhere else.
fn data() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    let out = |target: &str| {
        [
            Entry::link("data/out", target),
            file("data/out/x"),
            Entry::dir("data/out/d"),
        ]
    };
    vec![
        confined("user data: up and out", &out("../outside")),
        confined("user data: from the root", &out("/outside")),
        confined("user data: from the root, far away", &out("/var/tmp")),
        confined(
            "user data: the process's root",
            &out("/proc/self/root/outside"),
        ),
        confined("user data: into the system", &out("../cache/system")),
        confined(
            "user data: through a link of the user's",
            &[file("data/theirs/x"), Entry::dir("data/theirs/d")],
        ),
        confined(
            "user data: a hard link through a link",
            &[
                Entry::link("data/out", "../outside"),
                Entry::hard("data/h", "data/out/kept"),
            ],
        ),
        applied(
            "user data: a link where a file is",
            &[("data/own", Link("../outside/kept"))],
            &[Entry::link("data/own", "../outside/kept")],
        ),
        applied(
            "user data: a file where a link is",
            &[("data/theirs", File(b"hostile"))],
            &[file("data/theirs")],
        ),
        applied(
            "user data: set-uid, and a mode with everything",
            &[("data/x", File(b"hostile")), ("data/d", Directory)],
            &[
                file("data/x").mode(0o6755),
                Entry::dir("data/d").mode(0o7777),
            ],
        ),
        applied(
            "user data: a device that is written over",
            &[("data/b", File(b"hostile")), ("data/c", BlockDevice)],
            &[
                Entry::device("data/b"),
                Entry::device("data/c"),
                file("data/b"),
            ],
        )
        .for_root(),
        applied(
            "user data: the root's mode and owner",
            &[("data/own", File(b"own"))],
            &[Entry::dir("data/").mode(0)],
        )
        .for_root(),
    ]
}

//! Names that lead out, that no directory can hold, or that are not for archives to use.

use crate::case::Is::{Directory, File, Nothing};
use crate::case::{Case, applied, confined, like_tar, refused, unfit};
use crate::raw::Entry;

const PARENT: &str = "it has a `..` part";
const ABSOLUTE: &str = "it is absolute";
const RESERVED: &str = "the name is reserved";

pub(crate) fn cases() -> Vec<Case> {
    [leading_out(), strange(), not_of_the_system(), reserved()].concat()
}

fn leading_out() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    vec![
        refused("climbs", PARENT, &[file("../outside/x")]),
        refused(
            "climbs from inside",
            PARENT,
            &[file("system/../../outside/x")],
        ),
        refused(
            "climbs and stays inside",
            PARENT,
            &[file("system/etc/../x")],
        ),
        refused("climbs as a directory", PARENT, &[Entry::dir("system/..")]),
        refused("is the parent", PARENT, &[Entry::dir("..")]),
        refused("absolute", ABSOLUTE, &[file("/etc/x")]),
        refused("absolute, and again", ABSOLUTE, &[file("//system/x")]),
        refused(
            "climbs by a long name",
            PARENT,
            &[file("system/x").long(b'L', "system/../../outside/x")],
        ),
        refused(
            "absolute by a long name",
            ABSOLUTE,
            &[file("system/x").long(b'L', "/etc/x")],
        ),
        refused(
            "climbs by pax",
            PARENT,
            &[file("system/x").pax(&[("path", b"system/../../outside/x")])],
        ),
        refused(
            "absolute by pax",
            ABSOLUTE,
            &[file("system/x").pax(&[("path", b"/etc/x")])],
        ),
        refused(
            "climbs by the name of a sparse file",
            PARENT,
            &[Entry::file("system/x", "").pax(&[
                ("GNU.sparse.name", b"../outside/x"),
                ("GNU.sparse.numblocks", b"0"),
                ("GNU.sparse.size", b"0"),
            ])],
        ),
        refused(
            "climbs by the prefix",
            PARENT,
            &[file("outside/x")
                .put(257, b"ustar\x0000")
                .put(345, b"system/../..")],
        ),
        refused(
            "absolute by the prefix",
            ABSOLUTE,
            &[file("x").put(257, b"ustar\x0000").put(345, b"/etc")],
        ),
        refused(
            "climbs as an image",
            PARENT,
            &[file("partitions/../boot.img")],
        ),
        refused(
            "climbs as an image of a name",
            PARENT,
            &[file("partitions/../../boot")],
        ),
        refused(
            "climbs out of user data",
            PARENT,
            &[file("data/../../outside/x")],
        ),
    ]
}

fn strange() -> Vec<Case> {
    let file = |name: &[u8]| Entry::file(name, "x");
    let longest = [b"system/".as_slice(), &[b'n'; 255]].concat();
    let longer = [b"system/".as_slice(), &[b'n'; 256]].concat();
    let deep = vec!["d".repeat(200); 18].join("/");
    let deep = format!("system/{deep}/x");
    let endless = vec!["d"; 3000].join("/");
    vec![
        like_tar("doubled slashes and dots", &[file(b"./system//./etc///x")]),
        like_tar(
            "a newline",
            &[file(b"system/a\nb"), file(b"system/progress: 1\n\n")],
        ),
        like_tar("escapes", &[file(b"system/\x1b[2J\x07\x7f\x9b")]),
        like_tar("not UTF-8", &[file(b"system/\xff\xfe\xc3")]),
        like_tar(
            "a name that is cut at its NUL",
            &[file(b"system/x").long(b'L', "system/y\0/../../z")],
        ),
        like_tar("255 bytes", &[file(&longest)]),
        refused("256 bytes", "longer than 255 bytes", &[file(&longer)]),
        refused(
            "a directory of 256 bytes",
            "longer than 255 bytes",
            &[file(&[&longer, &b"/x"[..]].concat())],
        ),
        like_tar("four kilobytes of directories", &[file(deep.as_bytes())]),
        refused(
            "six kilobytes",
            "bytes in a name",
            &[file(endless.as_bytes())],
        ),
        refused(
            "a NUL",
            "NUL",
            &[file(b"system/x").pax(&[("path", b"system/a\0b")])],
        ),
        refused("empty", "it has no name", &[file(b"")]),
        refused(
            "empty by pax",
            "it has no name",
            &[file(b"system/x").pax(&[("path", b"")])],
        ),
        refused(
            "escapes in what is refused",
            "it has a `..` part",
            &[file(b"../\x1b]0;title\x07\x1b[2J\nok  \xff\x9b31m/x")],
        ),
        applied(
            "escapes in what is left out",
            &[],
            &[
                file(b"partitions/\x1b[2J\n\xff.img"),
                file(b"\x1b[2J\nrefused: no\n"),
            ],
        ),
        refused(
            "a file with a slash behind",
            "data of a member that has none",
            &[file(b"system/x/")],
        ),
        unfit(
            "below a file",
            "File exists",
            &[file(b"system/etc/build/x")],
        ),
    ]
}

fn not_of_the_system() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    let is_no_tree = "the root of a tree is a directory";
    vec![
        applied(
            "all members are the root",
            &[],
            &[
                Entry::dir("./").mode(0),
                Entry::dir("."),
                Entry::dir("././"),
            ],
        ),
        refused("the system is a file", is_no_tree, &[file("system")]),
        refused(
            "the system is a link",
            is_no_tree,
            &[Entry::link("system", "../outside")],
        ),
        refused(
            "the system is a hard link",
            is_no_tree,
            &[Entry::hard("system", "system/etc/build")],
        ),
        refused(
            "user data is a link",
            is_no_tree,
            &[Entry::link("data", "../../outside")],
        ),
        applied(
            "files of the drop box and of the recovery",
            &[
                ("cache/recovery/ubuntu_command", Nothing),
                ("cache/recovery/x", Nothing),
            ],
            &[
                file("recovery/ubuntu_command"),
                file("recovery/x"),
                file("etc/system-image/upgrader.toml"),
            ],
        ),
        applied(
            "the directory of images is a link",
            &[("boot", File(b"kernel"))],
            &[
                Entry::link("partitions", "../outside"),
                Entry::file("partitions/boot.img", "kernel"),
            ],
        ),
        applied(
            "`removed` as a directory's name",
            &[],
            &[file("removed/x"), file("removedx")],
        ),
    ]
}

fn reserved() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    let part = ".system-image.part";
    vec![
        refused(
            "the staging directory",
            RESERVED,
            &[Entry::dir("system/.system-image")],
        ),
        refused(
            "in the staging directory",
            RESERVED,
            &[file("system/.system-image/ready/etc/build")],
        ),
        refused(
            "the staging directory as a link",
            RESERVED,
            &[Entry::link("system/.system-image", "outside")],
        ),
        refused(
            "the staging directory of user data",
            RESERVED,
            &[file("data/.system-image/partitions/boot")],
        ),
        refused(
            "the note of an upgrader",
            RESERVED,
            &[file("data/.system-image.top/x")],
        ),
        refused(
            "the name of what is incomplete",
            RESERVED,
            &[file(&format!("system/etc/{part}"))],
        ),
        refused(
            "a directory of that name",
            RESERVED,
            &[file(&format!("system/{part}/x"))],
        ),
        refused(
            "a link of that name",
            RESERVED,
            &[Entry::link(format!("data/a/{part}"), "x")],
        ),
        refused(
            "that name by pax",
            RESERVED,
            &[file("system/x").pax(&[("path", b"system/.system-image.part")])],
        ),
        refused(
            "a hard link to what is staged",
            "not in the same tree",
            &[Entry::hard("data/x", "data/.system-image/partitions/boot")],
        ),
        like_tar(
            "that name, deeper",
            &[
                Entry::dir("system/etc/.system-image"),
                file("system/etc/.system-image/x"),
            ],
        ),
        unfit(
            "the staging directory through a link",
            RESERVED,
            &[
                Entry::link("system/self", "."),
                Entry::dir("system/self/.system-image"),
                file("system/self/.system-image/ready/etc/build"),
            ],
        ),
        unfit(
            "the staging directory of user data through a link",
            RESERVED,
            &[
                Entry::file("partitions/boot.img", "kernel"),
                Entry::link("data/self", "."),
                Entry::link("data/self/.system-image/partitions/boot", "../../own"),
            ],
        ),
        confined(
            "through a link to the staging directory",
            &[
                Entry::file("partitions/boot.img", "kernel"),
                Entry::link("data/staged", ".system-image/partitions"),
                file("data/staged/boot"),
            ],
        ),
        applied(
            "what ext4 keeps for itself",
            &[
                ("cache/system/lost+found/x", Nothing),
                ("data/lost+found/x", Nothing),
            ],
            &[
                Entry::dir("system/lost+found"),
                file("system/lost+found/x"),
                Entry::link("system/lost+found/l", "../outside"),
            ],
        ),
        applied(
            "the same name, deeper",
            &[("cache/system/etc/lost+found", Directory)],
            &[Entry::dir("system/etc/lost+found")],
        ),
    ]
}

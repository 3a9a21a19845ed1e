//! Links of both kinds, and what is written through them.

use crate::case::Is::{Directory, File, Link, Nothing};
use crate::case::{Case, applied, like_tar, refused, unfit};
use crate::raw::Entry;

pub(crate) fn cases() -> Vec<Case> {
    [through(), replaced(), chains(), hard()].concat()
}

/// Links that lead out: from outside of the tree the same path leads to `outside` beside it, inside it
/// leads to the tree's own.
fn through() -> Vec<Case> {
    let inside: &[(&str, crate::case::Is)] = &[
        ("cache/system/outside/x", File(b"hostile")),
        ("cache/outside/x", Nothing),
        ("outside/x", Nothing),
    ];
    let file = |name: &str| Entry::file(name, "hostile");
    let out = |target: &str, name: &str| {
        [
            Entry::link("system/out", target),
            file(&format!("system/out{name}")),
        ]
    };
    let via = |entry: Entry| [Entry::link("system/out", "../../outside"), entry];
    vec![
        applied("up and out", inside, &out("../../../outside", "/x")),
        applied("from the root", inside, &out("/outside", "/x")),
        applied(
            "from the root, and up",
            inside,
            &out("/../../outside/.", "/x"),
        ),
        applied(
            "from deep inside",
            inside,
            &[
                Entry::link("system/usr/lib/out", "../../../../outside"),
                file("system/usr/lib/out/x"),
            ],
        ),
        applied("the parent itself", inside, &out("..", "/outside/x")),
        unfit(
            "the directory of temporary files",
            "File exists",
            &out("/var/tmp", "/x"),
        ),
        unfit(
            "the process's root",
            "File exists",
            &out("/proc/self/root", "/outside/x"),
        ),
        unfit(
            "the process's directory",
            "File exists",
            &out("/proc/self/cwd", "/x"),
        ),
        unfit(
            "an open descriptor",
            "File exists",
            &out("/proc/self/fd/3", "/x"),
        ),
        unfit(
            "a thread's descriptor",
            "File exists",
            &out("/dev/fd/3/..", "/outside/x"),
        ),
        applied(
            "a directory",
            &[
                ("cache/system/outside/d", Directory),
                ("cache/outside/d", Nothing),
            ],
            &via(Entry::dir("system/out/d")),
        ),
        applied(
            "a link",
            &[
                ("cache/system/outside/l", Link("/etc")),
                ("cache/outside/l", Nothing),
            ],
            &via(Entry::link("system/out/l", "/etc")),
        ),
        applied(
            "a pipe",
            &[("cache/outside/p", Nothing)],
            &via(Entry::fifo("system/out/p")),
        ),
        applied(
            "a device",
            &[("cache/outside/b", Nothing)],
            &via(Entry::device("system/out/b")),
        ),
        applied(
            "a hard link, and its file",
            &[
                ("cache/system/outside/h", File(b"kept")),
                ("cache/outside/h", Nothing),
            ],
            &via(Entry::hard("system/out/h", "system/out/kept")),
        ),
        applied(
            "a file that is there",
            &[("cache/system/outside/kept", File(b"hostile"))],
            &via(file("system/out/kept")),
        ),
        like_tar("a link of the image", &[file("system/lib/new")]),
    ]
}

fn replaced() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    vec![
        like_tar(
            "a file where a link is",
            &[Entry::link("system/l", "outside/kept"), file("system/l")],
        ),
        like_tar(
            "a pipe where a link is",
            &[
                Entry::link("system/l", "outside/kept"),
                Entry::fifo("system/l"),
            ],
        ),
        like_tar(
            "a link where a file is",
            &[Entry::link("system/etc/build", "../outside/kept")],
        ),
        like_tar(
            "file, directory, file",
            &[file("system/a"), Entry::dir("system/a"), file("system/a")],
        ),
        unfit(
            "a file where a directory is",
            "a directory that is not empty",
            &[file("system/etc")],
        ),
        unfit(
            "a link where a directory is",
            "a directory that is not empty",
            &[Entry::link("system/etc", "outside")],
        ),
        applied(
            "a directory that becomes a link",
            &[
                ("cache/system/outside/x", File(b"hostile")),
                ("cache/system/d", Link("outside")),
            ],
            &[
                Entry::dir("system/d"),
                Entry::link("system/d", "outside"),
                file("system/d/x"),
            ],
        ),
        like_tar(
            "the mode of a directory that becomes a link",
            &[
                Entry::dir("system/d").mode(0o700),
                Entry::link("system/d", "outside"),
            ],
        ),
        like_tar(
            "directory, link, file, directory",
            &[
                Entry::dir("system/d"),
                Entry::link("system/d", "outside"),
                file("system/d"),
                Entry::dir("system/d").mode(0o711),
                file("system/d/x"),
            ],
        ),
        applied(
            "a directory where a dangling link is",
            &[("cache/system/d/x", File(b"hostile"))],
            &[
                Entry::link("system/d", "nowhere"),
                Entry::dir("system/d"),
                file("system/d/x"),
            ],
        ),
        applied(
            "`channel.ini` as a link out",
            &[],
            &[
                Entry::dir("system/etc/system-image"),
                Entry::link(
                    "system/etc/system-image/channel.ini",
                    "../../../outside/channel.ini",
                ),
            ],
        ),
        applied(
            "`channel.ini` as a pipe",
            &[],
            &[
                Entry::dir("system/etc/system-image"),
                Entry::fifo("system/etc/system-image/channel.ini"),
            ],
        ),
        applied(
            "a long `channel.ini`",
            &[],
            &[Entry::file(
                "system/etc/system-image/channel.ini",
                vec![b'x'; 100_000],
            )],
        ),
    ]
}

fn chains() -> Vec<Case> {
    let file = |name: &str| Entry::file(name, "hostile");
    let chain = |links: usize| -> Vec<Entry> {
        let link = |n: usize| Entry::link(format!("system/l{n}"), format!("l{}", n + 1));
        let mut entries: Vec<_> = (0..links - 1).map(link).collect();
        entries.push(Entry::link(format!("system/l{}", links - 1), "/outside"));
        entries.push(file("system/l0/x"));
        entries
    };
    vec![
        applied(
            "as many links as may be",
            &[("cache/system/outside/x", File(b"hostile"))],
            &chain(40),
        ),
        unfit("one link more", "File exists", &chain(41)),
        unfit(
            "a loop",
            "File exists",
            &[Entry::link("system/l", "l"), file("system/l/x")],
        ),
        unfit(
            "a loop of two",
            "File exists",
            &[
                Entry::link("system/a", "b"),
                Entry::link("system/b", "a/../a"),
                file("system/b/x"),
            ],
        ),
        refused(
            "a target of four kilobytes",
            "link target",
            &[Entry::link("system/l", "t".repeat(4096))],
        ),
        like_tar(
            "the longest target",
            &[Entry::link("system/l", "t".repeat(4000))],
        ),
        refused(
            "an empty target",
            "link target",
            &[Entry::link("system/l", "")],
        ),
        refused(
            "a NUL in a target",
            "link target",
            &[Entry::link("system/l", "x").pax(&[("linkpath", b"a\0b")])],
        ),
        like_tar(
            "a strange target",
            &[Entry::link("system/l", b"\x1b[2J\n\xff")],
        ),
    ]
}

fn hard() -> Vec<Case> {
    const ELSEWHERE: &str = "which is not in the same tree";
    let build = "system/etc/build";
    vec![
        refused(
            "out",
            ELSEWHERE,
            &[Entry::hard("system/h", "../outside/kept")],
        ),
        refused(
            "out from the root",
            ELSEWHERE,
            &[Entry::hard("system/h", "/etc/passwd")],
        ),
        refused(
            "out by a long name",
            ELSEWHERE,
            &[Entry::hard("system/h", "x").long(b'K', "system/../../outside/kept")],
        ),
        refused(
            "out by pax",
            ELSEWHERE,
            &[Entry::hard("system/h", "x").pax(&[("linkpath", b"../outside/kept")])],
        ),
        refused(
            "into user data",
            ELSEWHERE,
            &[Entry::hard("system/h", "data/own")],
        ),
        refused("from user data", ELSEWHERE, &[Entry::hard("data/h", build)]),
        refused(
            "to a file of the recovery",
            ELSEWHERE,
            &[Entry::hard("system/h", "etc/passwd")],
        ),
        refused(
            "to the root",
            ELSEWHERE,
            &[Entry::hard("system/h", "system")],
        ),
        unfit(
            "to nothing",
            "No such file",
            &[Entry::hard("system/h", "system/nothing")],
        ),
        unfit(
            "to nothing, below nothing",
            "No such file",
            &[Entry::hard("system/h", "system/no/thing")],
        ),
        unfit(
            "to a directory",
            "cannot place `h`",
            &[Entry::hard("system/h", "system/etc")],
        ),
        unfit(
            "to itself, and not there",
            "No such file",
            &[Entry::hard("system/h", "system/h")],
        ),
        applied(
            "to itself",
            &[("cache/system/etc/build", File(b"1\n"))],
            &[Entry::hard(build, build)],
        ),
        unfit(
            "to what comes later",
            "No such file",
            &[
                Entry::hard("system/h", "system/later"),
                Entry::file("system/later", "x"),
            ],
        ),
        like_tar(
            "to what is replaced later",
            &[Entry::hard("system/h", build), Entry::file(build, "2\n")],
        ),
        like_tar(
            "that is replaced later",
            &[
                Entry::hard("system/h", build),
                Entry::file("system/h", "2\n"),
            ],
        ),
        like_tar(
            "to a link",
            &[
                Entry::link("system/l", "../outside/kept"),
                Entry::hard("system/h", "system/l"),
            ],
        ),
        like_tar(
            "with a size",
            &[
                Entry::hard("system/h", build).size(2),
                Entry::file("system/z", "z"),
            ],
        ),
        unfit(
            "where a directory is",
            "not empty",
            &[Entry::hard("system/etc", "system/outside/kept")],
        ),
    ]
}

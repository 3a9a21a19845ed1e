//! The systems that are updated: small, with every kind of change between two versions.

use system_image_testkit::tree::Tree;

/// Bytes of the largest file: several writes of whoever unpacks it.
const LARGE: usize = 300_000;

/// Directories with a few small files each, some of which every version changes.
const PARTS: u32 = 6;

/// One version of the system. Odd and even ones differ in the kind of what is at many paths; each
/// has content of its own.
pub(crate) fn version(number: u32) -> Tree {
    let text = format!("{number}\n");
    let tree = Tree::new()
        .dir("etc")
        .file("etc/build", text.as_str())
        .file("etc/with space", "the same in each\n")
        .dir("bin")
        .file("bin/large", noise(number, LARGE))
        .file("bin/tool", noise(0, 9000))
        .with("bin/tool", |header| header.mode = 0o4755)
        .hard_link("bin/also", "bin/tool")
        .symlink("current", format!("part{number}"))
        .file("owned", "by another\n")
        .with("owned", |header| (header.uid, header.gid) = (7, number))
        .file("noted", "with an attribute\n")
        .xattr("noted", "trusted.note", text.as_str())
        .device("null", 1, 3 + number % 3);
    let tree = (0..PARTS).fold(tree, |tree, part| {
        let name = format!("part{part}");
        let changing = noise(part * 100 + number * (part % 2), 3000);
        tree.dir(&name)
            .file(format!("{name}/changing"), changing)
            .file(format!("{name}/constant"), noise(part, 2000))
    });
    if number % 2 == 1 {
        odd(tree)
    } else {
        even(tree)
    }
}

fn odd(tree: Tree) -> Tree {
    tree.dir("turns")
        .file("turns/inside", "a directory now\n")
        .symlink("lib", "usr/lib")
        .file("kind", "a file now\n")
        .file("shared/one", "one file\n")
        .dir("shared")
        .hard_link("shared/two", "shared/one")
        .dir("gone")
        .dir("gone/deep")
        .file("gone/deep/file", "is removed\n")
        .fifo("pipe")
}

fn even(tree: Tree) -> Tree {
    tree.symlink("turns", "part1")
        .dir("lib")
        .file("lib/inside", "was a link\n")
        .dir("kind")
        .file("kind/inside", "was a file\n")
        .dir("shared")
        .file("shared/one", "one of two\n")
        .file("shared/two", "another\n")
        .dir("come")
        .symlink("come/link", "../etc/build")
        .file("pipe", "was a pipe\n")
}

/// Bytes that do not compress; the same for the same seed.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

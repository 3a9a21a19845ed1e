//! A second applier, written from `docs/formats/patch.md` alone, makes the same of our patches.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use system_image_testkit::tree::Tree;
use system_image_testkit::{Linked, aarch64, between, kernel_tree, patch};

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
}

fn server() -> String {
    let server = system_image_tests::programs().join("system-image-server");
    server.to_str().unwrap().to_owned()
}

/// Our program and the second applier make the same of a base and a patch, and of partitions in the
/// directory of that name.
fn assert_both_make(place: &Path, [base, patch]: [&str; 2], want: &[u8]) {
    let ours = ["patch", "apply", base, patch, "ours.tar"];
    run(
        place,
        &server(),
        &[&ours[..], &["--partitions", "partitions"]].concat(),
    );
    let applier = Path::new(env!("CARGO_MANIFEST_DIR")).join("patch.py");
    let applier = applier.to_str().unwrap();
    let theirs = [applier, base, patch, "theirs.tar", "partitions"];
    run(place, "python3", &theirs);
    assert!(fs::read(place.join("ours.tar")).unwrap() == want);
    assert!(fs::read(place.join("theirs.tar")).unwrap() == want);
}

/// Makes an image of a tree with programs and with an initial RAM disk, a kernel and manuals, packed by
/// the programs that distributions use.
const IMAGE: &str = r#"
set -eu
out=$1 lines=$2 version=$3
rm -rf tree && mkdir -p tree/boot tree/doc tree/lib/$version
seq $lines | sed "s/$/ of the module/" > tree/lib/$version/module
(cd tree/lib && find . | sort | cpio --quiet -o -H newc) > cpio
zstd -q -9 -f cpio -o tree/boot/initrd.img-$version
seq 2000 $((lines * 9)) > vmlinux
# What a kernel for x86 begins with, as far as it is looked at.
{ printf MZ; head -c 512 /dev/zero; printf HdrS; echo $version; lz4 -l -9 -q -c vmlinux; printf '1234the end'; } \
    > tree/boot/vmlinuz-$version
# A program whose parts move.
mkdir tree/bin
{
    seq $((lines - 49700)) | sed 's/.*/int early&(int a) { return a * & ^ (a >> 3); }/'
    echo 'int f0(int a) { return a; }'
    seq 1500 | sed 's/.*/int f&(int a) { static int b; b += a; return (a ^ &) * b + f0(a + &); }/'
    echo 'int (*table[])(int) = {'
    seq 1500 | sed 's/.*/f&,/'
    echo '}; int main(int c, char **v) { return table[c](c); }'
} > program.c
cc -O0 -o tree/bin/program program.c
cc -O0 -c -o tree/bin/module.ko program.c
# Its groups of blocks are so small that programs stand in several.
mkfs.ext4 -q -F -b 1024 -g 256 -O ^flex_bg,^resize_inode,^has_journal -d tree/bin ${out%.tar}.ext4 4M
seq $lines | gzip -9n > tree/doc/changelog.gz
seq 5 $lines | gzip -6n > tree/doc/manual.gz
tar --sort=name --owner=0 --group=0 --numeric-owner -cf $out -C tree .
"#;

#[test]
fn a_second_applier_makes_the_same() {
    let lab = tempfile::tempdir().unwrap();
    let place = lab.path();
    run(
        place,
        "bash",
        &["-c", IMAGE, "image", "old.tar", "50000", "6.1.0-50"],
    );
    run(
        place,
        "bash",
        &["-c", IMAGE, "image", "new.tar", "50400", "6.1.0-56"],
    );
    let server = server();
    let server = server.as_str();
    let packed = ["pack-deflate", "pack-lz4-hc", "pack-zstd-1.5.4", "pointers"];
    let pieces = ["ext4-inodes", "pointers", "pointers-in-pieces"];
    for (file, extra) in [("old.so", 0), ("new.so", 9)] {
        fs::write(place.join(file), aarch64(1500, extra, Linked::Shared)).unwrap();
    }
    for (file, extra, build) in [("old.kernel", 0, 1), ("new.kernel", 20, 2)] {
        fs::write(place.join(file), kernel_tree(extra, build).tar()).unwrap();
    }
    for (old, new, needed) in [
        ("old.tar", "new.tar", &packed[..]),
        ("old.ext4", "new.ext4", &pieces),
        ("old.so", "new.so", &["pointers", "pointers-aarch64"]),
        ("old.kernel", "new.kernel", &["pointers", "pointers-btf"]),
    ] {
        run(place, server, &["patch", "make", old, new, "patch"]);
        let info = Command::new(server)
            .current_dir(place)
            .args(["patch", "info", "patch"])
            .output()
            .unwrap();
        let info = String::from_utf8(info.stdout).unwrap();
        for feature in needed {
            assert!(info.contains(&format!(" {feature}\n")), "{info}");
        }
        let want = fs::read(place.join(new)).unwrap();
        assert_both_make(place, [old, "patch"], &want);
    }
}

#[test]
fn another_applier_makes_the_same_of_the_files_of_a_tree() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let noise: Vec<u8> = (1..30_000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).wrapping_mul(i).to_be_bytes()[0])
        .collect();
    let text = |end: &str| (0..9000).map(|i| format!("{i}\n")).collect::<String>() + end;
    let base = Tree::new()
        .dir("usr")
        .file("usr/empty", "")
        .file("usr/text", text("old"))
        .file("usr/texture", text("and more"))
        .image("boot", [noise.clone(), vec![7; 3]].concat());
    let target = base.clone().file("usr/text", text("new"));
    let target = target.file("usr/texture", text("or less"));
    let target = target.image("boot", [noise, vec![8; 5]].concat());
    fs::write(place.join("base.tar"), base.tar()).unwrap();
    fs::write(place.join("a.patch"), patch(&base, &target)).unwrap();
    run(place, "tar", &["--extract", "--file", "base.tar"]);
    assert_both_make(place, ["system", "a.patch"], &between(&base, &target));
}

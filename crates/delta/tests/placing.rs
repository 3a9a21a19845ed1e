//! How members are placed (upgrader spec, section 7), and that nothing leaves the root.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use system_image_delta::{
    Applied, ApplyError, ArchiveError, CheckError, Kind, LeaveOut, Limits, Member, Privileges,
    Root, Route, Sink, apply, check,
};
use system_image_delta_build::Writer;
use system_image_testkit::tree::{TIME, Tree};

/// Remembers what did not go to the system.
#[derive(Default)]
struct Elsewhere(Vec<(Route, Vec<u8>)>);

impl Sink for Elsewhere {
    fn elsewhere(
        &mut self,
        member: &Member,
        content: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.0.push((member.route.clone(), bytes));
        Ok(())
    }
}

fn put_with(archive: &[u8], root: &Path, sink: &mut Elsewhere) -> Result<Applied, ApplyError> {
    // Owners are the archive's business elsewhere; here both runs give the same tree.
    apply(
        archive,
        Limits::default(),
        &Root::open(root).unwrap(),
        Privileges::User,
        sink,
    )
}

fn put(archive: &[u8], root: &Path) -> Result<Applied, ApplyError> {
    put_with(archive, root, &mut Elsewhere::default())
}

/// An archive of `removed` with these lines, then the members of `tree`.
fn update(removed: &str, tree: &Tree) -> Vec<u8> {
    let size = removed.len() as u64;
    let list = Tree::default().member("r", Kind::File { size }, 0o644, removed.into());
    let list = list
        .with("r", |header| header.path = b"removed".into())
        .tar();
    // Without the end mark and padding of the first archive.
    let end = 512 + removed.len().next_multiple_of(512);
    [&list[..end], &tree.tar()].concat()
}

/// A directory with a system in it and a file beside it.
fn device() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let system = directory.path().join("system");
    fs::create_dir(&system).unwrap();
    fs::write(directory.path().join("outside"), "precious").unwrap();
    (directory, system)
}

#[test]
fn a_replaced_file_leaves_its_other_names_alone() {
    let (_keep, system) = device();
    put(
        &Tree::new().file("a", "old").hard_link("b", "a").tar(),
        &system,
    )
    .unwrap();
    put(&Tree::new().file("a", "new").tar(), &system).unwrap();
    assert_eq!(fs::read(system.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(system.join("b")).unwrap(), b"old");
}

#[test]
fn a_link_that_is_there_already_leaves_nothing_behind() {
    let (_keep, system) = device();
    let member = |header: &mut system_image_delta::Header| header.mode = 0o600;
    put(
        &Tree::new()
            .file("a", "1")
            .hard_link("b", "a")
            .with("a", member)
            .tar(),
        &system,
    )
    .unwrap();
    // As a classic server sends it: the link alone, its file already on the device.
    let alone = Tree::new().hard_link("b", "a").tar();
    put(&alone, &system).unwrap();
    assert_eq!(fs::read_dir(&system).unwrap().count(), 2);
    let inode = |name: &str| fs::metadata(system.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
}

#[test]
fn members_pass_through_links_inside_the_system() {
    let (_keep, system) = device();
    let merged = Tree::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib");
    put(&merged.symlink("lib64", "/usr/lib").tar(), &system).unwrap();
    // A device archive made for a system where these are directories.
    let device = Tree::default()
        .dir("lib")
        .file("lib/x", "1")
        .dir("lib64")
        .file("lib64/y", "2");
    put(&device.tar(), &system).unwrap();
    assert!(
        fs::symlink_metadata(system.join("lib"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(fs::read(system.join("usr/lib/x")).unwrap(), b"1");
    // An absolute link means the system's root, not the machine's.
    assert_eq!(fs::read(system.join("usr/lib/y")).unwrap(), b"2");
}

#[test]
fn a_link_that_is_replaced_no_longer_leads_anywhere() {
    let (_keep, system) = device();
    put(
        &Tree::new().dir("one").dir("two").symlink("s", "one").tar(),
        &system,
    )
    .unwrap();
    let mut writer = Writer::new(Vec::new());
    // Through the link, the link turned, through the link again: one archive, in this order.
    for tree in [
        Tree::default().file("s/x", "first"),
        Tree::default().symlink("s", "two"),
        Tree::default().file("s/x", "second"),
    ] {
        let archive = tree.tar();
        let mut reader = system_image_delta::Reader::new(&archive[..], Limits::default());
        let header = reader.next_header().unwrap().unwrap();
        writer.member(&header, &mut reader).unwrap();
    }
    put(&writer.finish().unwrap().0, &system).unwrap();
    assert_eq!(fs::read(system.join("one/x")).unwrap(), b"first");
    assert_eq!(fs::read(system.join("two/x")).unwrap(), b"second");
}

#[test]
fn nothing_leaves_the_root_through_links_on_the_disk() {
    let (keep, system) = device();
    symlink(keep.path(), system.join("abs")).unwrap();
    symlink("..", system.join("up")).unwrap();
    symlink("../../../..", system.join("far")).unwrap();
    for link in ["abs", "up", "far"] {
        let name = format!("{link}/outside");
        let _ = put(&Tree::default().file(&name, "owned").tar(), &system);
        let _ = put(&Tree::default().hard_link("stolen", &name).tar(), &system);
        let _ = put(
            &Tree::default()
                .dir(link)
                .with(link, |h| h.mode = 0o700)
                .tar(),
            &system,
        );
        let _ = put(
            &update(&format!("system/{name}\n"), &Tree::default()),
            &system,
        );
    }
    assert_eq!(fs::read(keep.path().join("outside")).unwrap(), b"precious");
    // `..` stops at the root, so the second one removed what the first one had placed there.
    assert!(!system.join("outside").exists());
}

#[test]
fn names_that_lead_out_are_refused_before_anything_changes() {
    let (keep, system) = device();
    let raw = |path: &str, kind: Kind| {
        let tree = Tree::default().member("m", kind, 0o644, Vec::new());
        tree.with("m", |header| header.path = path.into()).tar()
    };
    let file = Kind::File { size: 0 };
    let link = |target: &str| Kind::HardLink {
        target: target.into(),
    };
    for archive in [
        raw("/etc/passwd", file.clone()),
        raw("system/../outside", file.clone()),
        raw("../outside", file.clone()),
        raw("", file.clone()),
        raw("system", Kind::Symlink { target: "/".into() }),
        raw("system/x", link("/etc/passwd")),
        raw("system/x", link("system/../outside")),
        raw("system/x", link("outside")),
        raw("system/x", link("system")),
        raw("system/a/.system-image.part", file.clone()),
        update("/etc\n", &Tree::default()),
        update("system/../outside\n", &Tree::default()),
        update("..\n", &Tree::default()),
        update(".\n", &Tree::default()),
        update("system/\n", &Tree::default()),
        update("./system\n", &Tree::default()),
    ] {
        assert!(check(&archive[..], Limits::default(), &mut LeaveOut).is_err());
        assert!(matches!(
            put(&archive, &system),
            Err(ApplyError::Archive(_))
        ));
    }
    assert_eq!(fs::read_dir(&system).unwrap().count(), 0);
    assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 2);
}

#[test]
fn removals_are_literal() {
    let (_keep, system) = device();
    let tree = Tree::new()
        .file("x*", "")
        .file("xy", "")
        .file("with", "")
        .file("with space", "")
        .file(" lead", "")
        .dir("d")
        .dir("d/deep")
        .file("d/deep/f", "")
        .symlink("s", "xy");
    put(&tree.tar(), &system).unwrap();
    let list = "system/x*\nsystem/with space\nsystem/ lead\n\nsystem/d\nsystem/d/deep\nsystem/s\n\
                system/never/there\npartitions/boot.img\n";
    let done = put(&update(list, &Tree::default()), &system).unwrap();
    assert_eq!(done.removed, 5);
    let mut left: Vec<_> = fs::read_dir(&system)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["with", "xy"]);
}

#[test]
fn a_list_of_removals_that_comes_late_is_refused() {
    let late = Tree::new()
        .file("a", "")
        .with("a", |header| header.path = b"removed".into());
    let refused = check(&late.tar()[..], Limits::default(), &mut LeaveOut).unwrap_err();
    assert!(
        matches!(refused, CheckError::Archive(ArchiveError::RemovedMember(_))),
        "{refused:?}"
    );
}

#[test]
fn a_directory_with_content_is_never_replaced_by_something_else() {
    let (_keep, system) = device();
    put(
        &Tree::new()
            .dir("full")
            .file("full/x", "")
            .dir("empty")
            .tar(),
        &system,
    )
    .unwrap();
    let refused = put(&Tree::new().file("full", "").tar(), &system).unwrap_err();
    assert!(matches!(&refused, ApplyError::NotEmpty { path } if path.as_bytes() == b"full"));
    assert!(system.join("full/x").exists());
    put(&Tree::new().symlink("empty", "full").tar(), &system).unwrap();
    assert_eq!(
        fs::read_dir(&system).unwrap().count(),
        2,
        "nothing temporary is left"
    );
}

#[test]
fn parents_without_entries_are_made() {
    let (_keep, system) = device();
    put(&Tree::default().file("a/b/c", "1").tar(), &system).unwrap();
    assert_eq!(
        fs::metadata(system.join("a/b"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o755
    );
}

#[test]
fn an_existing_directory_keeps_its_content_and_gets_mode_and_time() {
    let (_keep, system) = device();
    put(&Tree::new().dir("d").file("d/x", "").tar(), &system).unwrap();
    let closed = Tree::default()
        .dir("d")
        .with("d", |h| h.mode = 0o1750)
        .file("d/y", "");
    put(&closed.tar(), &system).unwrap();
    let meta = fs::metadata(system.join("d")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o1750, TIME));
    assert_eq!(fs::read_dir(system.join("d")).unwrap().count(), 2);
}

#[test]
fn a_directory_that_becomes_a_link_leaves_what_it_leads_to_alone() {
    let (_keep, system) = device();
    put(&Tree::new().dir("e").file("e/x", "").tar(), &system).unwrap();
    let both = Tree::default()
        .dir("a")
        .with("a", |header| {
            header.path = b"system/d".into();
            header.mode = 0o700;
        })
        .symlink("d", "e");
    put(&both.tar(), &system).unwrap();
    let meta = fs::metadata(system.join("e")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o755);
}

#[test]
fn no_link_leads_to_what_an_upgrader_prepares() {
    let file = |path: &str| {
        Tree::default()
            .symlink("l", ".")
            .file(path, "hostile")
            .tar()
    };
    let into = |tree: Tree| tree.symlink("l", ".system-image/partitions");
    for archive in [
        file("l/.system-image"),
        file("l/.system-image/ready/etc/x"),
        file("l/.system-image.top/x"),
        file("l/l/.system-image/partitions/boot"),
        into(Tree::default()).file("l/boot", "hostile").tar(),
        into(Tree::default().dir("z"))
            .symlink("z/l", "../l")
            .file("z/l/a/boot", "hostile")
            .tar(),
        update("system/there/.system-image\n", &Tree::default()),
        update("system/there/.system-image/partitions\n", &Tree::default()),
    ] {
        let (_keep, system) = device();
        fs::create_dir_all(system.join(".system-image/partitions")).unwrap();
        fs::write(system.join(".system-image/partitions/boot"), "checked").unwrap();
        symlink(".", system.join("there")).unwrap();
        let refused = put(&archive, &system).unwrap_err();
        let source = refused.source().unwrap().to_string();
        assert!(source.contains("reserved"), "{source}");
        let staged = system.join(".system-image/partitions");
        assert_eq!(fs::read(staged.join("boot")).unwrap(), b"checked");
        assert_eq!(fs::read_dir(staged).unwrap().count(), 1);
        assert!(!system.join(".system-image/ready").exists());
    }
}

#[test]
fn what_file_systems_keep_for_themselves_is_left_as_it_is() {
    let (_keep, system) = device();
    fs::create_dir(system.join("lost+found")).unwrap();
    fs::write(system.join("lost+found/#12"), "found").unwrap();
    let packed = Tree::new()
        .dir("lost+found")
        .file("lost+found/x", "x")
        .dir("etc")
        .file("etc/lost+found", "x");
    put(&update("system/lost+found\n", &packed), &system).unwrap();
    let found = fs::read_dir(system.join("lost+found")).unwrap();
    assert_eq!(found.count(), 1);
    assert!(system.join("etc/lost+found").exists());
}

#[test]
fn members_for_elsewhere_go_to_the_sink_only() {
    let (keep, system) = device();
    let mut tree = Tree::default();
    for path in [
        "partitions/boot.img",
        "data/x",
        "legacy_channel",
        "recovery/ubuntu_command",
    ] {
        tree = tree.member(path, Kind::File { size: 2 }, 0o644, "hi".into());
        tree = tree.with(path, |header| header.path = path.into());
    }
    let mut sink = Elsewhere::default();
    put_with(&tree.tar(), &system, &mut sink).unwrap();
    let routes: Vec<_> = sink.0.iter().map(|(route, _)| route.clone()).collect();
    let path = |text: &str| system_image_delta::MemberPath::parse(text.as_bytes()).unwrap();
    assert_eq!(
        routes,
        [
            Route::Data(path("x")),
            Route::Flag(system_image_delta::Flag::LegacyChannel),
            Route::Partition(path("boot.img")),
            Route::Unknown(path("recovery/ubuntu_command")),
        ]
    );
    assert!(sink.0.iter().all(|(_, content)| content == b"hi"));
    assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 2);
}

#[test]
fn what_a_normal_user_cannot_do_is_counted() {
    let (_keep, system) = device();
    let tree =
        Tree::new()
            .device("null", 1, 3)
            .file("f", "")
            .xattr("f", "security.capability", "x");
    let done = put(&tree.tar(), &system).unwrap();
    assert_eq!((done.skipped.devices, done.skipped.xattrs), (1, 1));
    assert!(!system.join("null").exists());
}

#[test]
fn a_deep_tree_is_removed_with_few_descriptors() {
    let (_keep, system) = device();
    let mut path = String::from("d");
    let mut tree = Tree::new().dir("d");
    for _ in 0..1500 {
        path.push_str("/d");
        tree = tree.dir(&path);
    }
    put(&tree.tar(), &system).unwrap();
    put(&update("system/d\n", &Tree::default()), &system).unwrap();
    assert_eq!(fs::read_dir(&system).unwrap().count(), 0);
}

#[test]
fn what_no_kernel_makes_is_found_by_the_check() {
    let file = || Tree::default().file("x", "");
    let link = |len| Tree::default().symlink("x", "t".repeat(len));
    for (tree, why) in [
        (
            file().xattr("x", "user.a", vec![0; 65_537]),
            "longer than any",
        ),
        (
            file().xattr("x", &format!("user.{}", "n".repeat(251)), "1"),
            "longer than any",
        ),
        (file().xattr("x", "com.apple.x", "1"), "unknown class"),
        (file().xattr("x", "user.", "1"), "unknown class"),
        (
            link(3).xattr("x", "user.a", "1"),
            "only files and directories",
        ),
        (link(4096), "longer than any link's"),
        (Tree::default().device("x", 4096, 0), "device number"),
        (Tree::default().device("x", 0, 1 << 20), "device number"),
    ] {
        let refused = check(&tree.tar()[..], Limits::default(), &mut LeaveOut).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let possible = file().xattr("x", "user.a", vec![0; 65_536]).tar();
    check(&possible[..], Limits::default(), &mut LeaveOut).unwrap();
    check(&link(4095).tar()[..], Limits::default(), &mut LeaveOut).unwrap();
}

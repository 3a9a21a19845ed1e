//! Any two trees: base and delta lead to the target, also after an interruption at any byte.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use proptest::prelude::*;
use system_image_delta::{
    ApplyError, Kind, Limits, Member, Mtime, Privileges, Root, Sink, apply, check,
};
use system_image_delta_build::{Form, Options, delta, normalise};
use system_image_testkit::tree::{TIME, Tree, assert_same};

struct SystemOnly;

impl Sink for SystemOnly {
    fn elsewhere(
        &mut self,
        _: &Member,
        _: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("not expected".into())
    }
}

fn put(archive: &[u8], directory: &std::path::Path) -> Result<(), ApplyError> {
    let root = rustix::process::geteuid().is_root();
    let privileges = if root {
        Privileges::Root
    } else {
        Privileges::User
    };
    let root = Root::open(directory).unwrap();
    apply(
        archive,
        Limits::default(),
        &root,
        privileges,
        &mut SystemOnly,
    )
    .map(|_| ())
}

fn stored(archive: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    file
}

/// Few names, so that two trees have much in common.
fn path() -> impl Strategy<Value = Vec<u8>> {
    const LONG: &[u8] = b"a-long-name-that-is-repeated-until-it-no-longer-fits-a-tar-header-itself";
    let part = prop::sample::select(vec![&b"a"[..], b"b", b"c d", b"-x*", b"\xe4", LONG]);
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join(&b'/'))
}

/// One member: what it is, which of a few modes, owners and times it has, its content, and the
/// file or path that it links to.
#[derive(Clone, Debug)]
struct Spec {
    kind: u8,
    meta: u8,
    content: u8,
    file: prop::sample::Index,
    target: Vec<u8>,
}

fn member() -> impl Strategy<Value = (Vec<u8>, Spec)> {
    let spec = (
        0..8_u8,
        any::<u8>(),
        0..3_u8,
        any::<prop::sample::Index>(),
        path(),
    )
        .prop_map(|(kind, meta, content, file, target)| Spec {
            kind,
            meta,
            content,
            file,
            target,
        });
    (path(), spec)
}

fn tree() -> impl Strategy<Value = Tree> {
    proptest::collection::vec(member(), 0..25).prop_map(|members| grown(Tree::new(), &members))
}

/// Two trees that are unlike each other, or of which one came from the other.
fn trees() -> impl Strategy<Value = (Tree, Tree)> {
    let gone = proptest::collection::vec(path(), 0..3);
    let new = proptest::collection::vec(member(), 0..6);
    let changed = (tree(), gone, new).prop_map(|(base, gone, new)| {
        let target = gone.iter().fold(base.clone(), |tree, path| {
            let below = [path, &b"/"[..]].concat();
            let kept = tree
                .paths()
                .all(|p| p != path && !p.starts_with(&below) || !linked(&tree, p));
            if kept { tree.without(path) } else { tree }
        });
        (base, grown(target, &new))
    });
    prop_oneof![(tree(), tree()), changed]
}

fn grown(tree: Tree, members: &[(Vec<u8>, Spec)]) -> Tree {
    members
        .iter()
        .fold(tree, |tree, (path, spec)| add(tree, path, spec))
}

/// Whether a hard link names this path: then it has to stay.
fn linked(tree: &Tree, path: &[u8]) -> bool {
    let wire = [b"system/", path].concat();
    tree.paths()
        .any(|name| matches!(tree.kind(name), Some(Kind::HardLink { target }) if *target == wire))
}

/// Adds a member if its parent is a directory and nothing depends on what it would replace.
fn add(tree: Tree, path: &[u8], spec: &Spec) -> Tree {
    let slash = path.iter().rposition(|&b| b == b'/');
    let parent = slash.map_or(&b""[..], |slash| &path[..slash]);
    let in_the_way = tree.kind(path) == Some(&Kind::Directory) && spec.kind != 1;
    if tree.kind(parent) != Some(&Kind::Directory) || in_the_way || linked(&tree, path) {
        return tree;
    }
    let is_file = |name: &&[u8]| matches!(tree.kind(name), Some(Kind::File { .. }));
    let files: Vec<_> = tree.paths().filter(is_file).map(<[u8]>::to_vec).collect();
    let tree = match spec.kind {
        0 | 1 => tree.dir(path),
        2 => tree.symlink(path, &spec.target),
        3 | 4 if !files.is_empty() => {
            let target = spec.file.get(&files);
            return if target == path {
                tree
            } else {
                tree.hard_link(path, target)
            };
        }
        5 => tree.fifo(path),
        _ => tree.file(path, vec![spec.content; usize::from(spec.content)]),
    };
    let meta = spec.meta;
    let tree = tree.with(path, |header| {
        if !matches!(header.kind, Kind::Symlink { .. }) {
            header.mode = [0o755, 0o4711, 0o700, 0o1777][usize::from(meta & 3)];
        }
        header.uid = u32::from(meta >> 2 & 1);
        header.mtime = Mtime {
            seconds: TIME + i64::from(meta >> 3 & 1),
            nanos: 0,
        };
    });
    if meta >> 4 == 1 && matches!(tree.kind(path), Some(Kind::File { .. } | Kind::Directory)) {
        return tree.xattr(path, "user.x", [spec.content]);
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn base_and_delta_lead_to_the_target((base, target) in trees(), cut in 0.0..1.0_f64) {
        let mut archive = Vec::new();
        delta(&stored(&base.tar()), &stored(&target.tar()), Options::default(), &mut archive)
            .unwrap();
        check(&archive[..], Limits::default(), &mut SystemOnly).unwrap();
        let (updated, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(&base.tar(), updated.path()).unwrap();
        // An interruption anywhere, then the whole of it.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction")]
        let cut = (archive.len() as f64 * cut) as usize;
        let _ = put(&archive[..cut], updated.path());
        put(&archive, updated.path()).unwrap();
        put(&target.tar(), fresh.path()).unwrap();
        assert_same(updated.path(), fresh.path(), "updated");
        put(&archive, updated.path()).unwrap();
        assert_same(updated.path(), fresh.path(), "updated twice");
    }

    #[test]
    fn a_canonical_archive_is_left_as_it_is(tree in tree()) {
        let archive = tree.tar();
        let mut again = Vec::new();
        normalise(&archive[..], Form::Payload, Limits::default(), &mut again).unwrap();
        prop_assert_eq!(again, archive);
    }
}

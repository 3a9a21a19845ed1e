//! Making a target goes on where it was cut off, whatever was left of it.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod samples;

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use system_image_delta::patch::{
    Applied, ApplyError, Codec, Limits, Output, Patch, ReadAt, Remaker, Xz, XzCheck, Zstd157,
};
use system_image_delta_build::patch::{Effort, Options, make};

use samples::{noise, text};

/// An output that takes so many blocks and no more, as when the power is lost.
struct Cut {
    bytes: Vec<u8>,
    most: usize,
}

impl ReadAt for Cut {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.read_exact_at(buffer, offset)
    }
}

impl Output for Cut {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.write_all_at(bytes, offset)
    }

    fn left(&self) -> io::Result<u64> {
        self.bytes.left()
    }

    fn cut(&mut self, offset: u64) -> io::Result<()> {
        self.bytes.cut(offset)
    }
}

/// A base that notes what is read of it.
struct Watched<'a> {
    bytes: &'a [u8],
    read: Mutex<Vec<bool>>,
}

impl<'a> Watched<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            read: Mutex::new(vec![false; bytes.len()]),
        }
    }

    fn count(&self) -> usize {
        self.read
            .lock()
            .unwrap()
            .iter()
            .filter(|&&read| read)
            .count()
    }
}

impl ReadAt for Watched<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.read_exact_at(buffer, offset)?;
        let start = usize::try_from(offset).unwrap();
        self.read.lock().unwrap()[start..start + buffer.len()].fill(true);
        Ok(())
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let mut remaker = Remaker::new(codec, plain.len() as u64, u64::MAX).unwrap();
    let mut out = Vec::new();
    remaker.push(plain, &mut out).unwrap();
    remaker.finish(&mut out).unwrap();
    out
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-9nc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(plain).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

/// A kernel as far as its packing goes.
fn kernel(plain: &[u8]) -> Vec<u8> {
    let mut bytes = b"MZ".to_vec();
    bytes.resize(0x202, 0);
    bytes.extend_from_slice(b"HdrS");
    bytes.resize(2000, 1);
    bytes.extend(packed(Codec::Lz4Legacy { level: 9 }, plain));
    bytes.extend_from_slice(&u32::try_from(plain.len()).unwrap().to_le_bytes());
    bytes
}

const ZSTD: Codec = Codec::Zstd {
    level: 9,
    checksum: true,
    window: 22,
};

const ZSTD_157: Codec = Codec::Zstd157(Zstd157 {
    level: 9,
    checksum: true,
    window: 22,
    is_sized: false,
});

const XZ: Codec = Codec::Xz(Xz {
    preset: 6,
    is_extreme: false,
    check: XzCheck::Crc32,
    dictionary: 20,
    has_blocks: true,
});

/// Members of each sort, between files that stand for themselves, some more than once: later ones are
/// copies of what is packed in earlier ones.
fn image(version: u64) -> Vec<u8> {
    let content = |seed: u64, len: usize| {
        let mut bytes = noise(seed, len);
        bytes.splice(len / 2..len / 2, noise(100 + version, 300));
        for at in (0..bytes.len()).step_by(70_001) {
            bytes[at] = bytes[at].wrapping_add(u8::try_from(version).unwrap());
        }
        bytes
    };
    let (one, two) = (content(1, 2_600_000), content(2, 1_200_000));
    let new = [noise(50 + version, 900_000), one[..700_000].to_vec()].concat();
    let log = [
        text(0..30_000),
        text(90_000..90_000 + 90 * u32::try_from(version).unwrap()),
    ]
    .concat();
    let files: [(&str, Vec<u8>); 11] = [
        (
            "boot/initrd.img-6.1",
            packed(ZSTD, &[&one[..], &new].concat()),
        ),
        (
            "boot/initrd.img-6.12",
            packed(ZSTD_157, &[&two[..], &new, b"x"].concat()),
        ),
        ("boot/vmlinuz-6.1", kernel(&[&two[..], &log].concat())),
        ("doc/changelog.gz", gzip(&log)),
        ("lib/a.ko", one.clone()),
        ("lib/b.ko.xz", packed(XZ, &two[..400_000])),
        ("lib/c", new),
        (
            "lib/d.ko.xz",
            packed(XZ, &[&two[..300_000], &log[..200_000]].concat()),
        ),
        ("lib/e", log),
        ("lib/two", two),
        ("lib/twice", one),
    ];
    let mut tree = system_image_testkit::tree::Tree::new();
    for (name, bytes) in files {
        tree = tree.file(name, bytes);
    }
    tree.tar()
}

struct Made {
    base: Vec<u8>,
    target: Vec<u8>,
    patch: Vec<u8>,
}

fn made(base: Vec<u8>, target: Vec<u8>, memory: u64) -> Made {
    let mut patch = Vec::new();
    let options = Options {
        memory,
        threads: 2,
        effort: Effort::Default,
        packings: None,
    };
    make(&file(&base), &file(&target), options, &mut patch).unwrap();
    Made {
        base,
        target,
        patch,
    }
}

impl Made {
    fn block(&self) -> usize {
        1 << Patch::open(&self.patch[..]).unwrap().header().target_block
    }

    fn apply(&self, base: &dyn ReadAt, output: &mut dyn Output) -> Result<Applied, ApplyError> {
        let patch = Patch::open(&self.patch[..]).unwrap();
        patch.apply(base, output, Limits::default())
    }

    /// Goes on with what was left. How much of it was of use, what was done, how many bytes of the
    /// base were read (and none ahead), and how many members were packed.
    fn go_on(&self, mut left: Vec<u8>) -> (u64, Applied, usize, usize) {
        let base = Watched::new(&self.base);
        let patch = Patch::open(&self.patch[..]).unwrap();
        let mut members = 0;
        let mut remaker = |codec, len, memory| {
            members += 1;
            Remaker::new(codec, len, memory)
        };
        let applied = patch.apply_with(&base, &mut left, Limits::default(), &mut remaker);
        let applied = applied.unwrap();
        assert!(left == self.target);
        (applied.left, applied, base.count(), members)
    }
}

#[test]
fn a_target_goes_on_at_each_block_with_less_to_do() {
    for memory in [90 << 20, 24 << 20] {
        let made = made(image(1), image(2), memory);
        let opened = Patch::open(&made.patch[..]).unwrap();
        let required = &opened.header().required;
        if memory > 24 << 20 {
            for feature in [
                "pack-zstd-1.5.4",
                "pack-zstd-1.5.7",
                "pack-lz4-hc",
                "pack-xz",
                "pack-deflate",
            ] {
                assert!(
                    required.iter().any(|name| name == feature),
                    "{feature}: {required:?}"
                );
            }
        }
        let (left, whole, read, members) = made.go_on(Vec::new());
        assert_eq!(left, 0);
        let (mut least_read, mut least_members) = (read, members);
        // A patch for little memory has many small blocks.
        let step = made.block().max(2 << 20);
        for end in (0..=made.target.len()).step_by(step) {
            let (left, applied, read, members) = made.go_on(made.target[..end].to_vec());
            assert_eq!(left, end as u64);
            assert!(applied.work <= whole.work, "{end}: {applied:?}");
            assert!(read <= least_read, "{end}: {read} {least_read}");
            assert!(members <= least_members, "{end}: {members} {least_members}");
            (least_read, least_members) = (read, members);
        }
        let (left, applied, ..) = made.go_on(made.target.clone());
        assert_eq!(left, made.target.len() as u64);
        assert_eq!(applied.work, 0, "nothing is made when all is there");
        assert_eq!(least_members, 0, "of {members}");
    }
}

#[test]
fn only_the_base_of_what_is_made_is_read() {
    let base = noise(3, 16 << 20);
    let mut target = base.clone();
    for at in (1000..target.len()).step_by(1 << 20) {
        target[at] ^= 1;
    }
    let made = made(base, target, 24 << 20);
    let end = made.target.len() - made.block();
    let (left, _, read, _) = made.go_on(made.target[..end].to_vec());
    assert_eq!(left, end as u64);
    assert!(read <= 4 << 20, "{read}: a block of the base");
}

#[test]
fn what_was_written_before_a_full_disk_is_gone_on_with() {
    let made = made(image(1), image(2), 90 << 20);
    let most = 3 * made.block() + 5;
    let mut cut = Cut {
        bytes: Vec::new(),
        most,
    };
    let failed = made.apply(&made.base, &mut cut).unwrap_err();
    assert!(matches!(failed, ApplyError::Write(_)), "{failed:?}");
    assert!(cut.bytes == made.target[..3 * made.block()]);
    cut.most = usize::MAX;
    let applied = made.apply(&made.base, &mut cut).unwrap();
    assert!(cut.bytes == made.target);
    assert_eq!(applied.left, 3 * made.block() as u64);
}

#[test]
fn what_is_left_is_used_up_to_what_is_wrong() {
    let made = made(image(1), image(2), 90 << 20);
    let (block, len) = (made.block(), made.target.len());
    assert!(len > 5 * block);
    let whole = |bytes: usize| (bytes / block * block) as u64;
    for end in [block - 1, 3 * block + 77, len - 1] {
        assert_eq!(
            made.go_on(made.target[..end].to_vec()).0,
            whole(end),
            "torn at {end}"
        );
    }
    for wrong in [0, 2 * block, len - 1] {
        let mut left = made.target.clone();
        left[wrong] ^= 1;
        assert_eq!(made.go_on(left).0, whole(wrong), "wrong at {wrong}");
        // A block that never reached the disk.
        let mut left = made.target.clone();
        let start = wrong / block * block;
        left[start..len.min(start + block)].fill(0);
        assert_eq!(made.go_on(left).0, whole(wrong), "empty at {wrong}");
    }
    let longer = [&made.target[..], b"and more"].concat();
    assert_eq!(made.go_on(longer).0, len as u64);
    for other in [made.base.clone(), noise(1, 2 * len), Vec::new()] {
        assert_eq!(made.go_on(other).0, 0);
    }
}

#[test]
fn a_file_is_gone_on_with_and_cut() {
    let made = made(image(1), image(2), 90 << 20);
    let block = made.block();
    let left = [&made.target[..3 * block], &noise(1, made.target.len())].concat();
    let mut output = file(&left);
    let applied = made.apply(&made.base, &mut output).unwrap();
    assert_eq!(applied.left, 3 * block as u64);
    let mut bytes = vec![0; made.target.len()];
    output.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == made.target);
    assert_eq!(output.metadata().unwrap().len(), made.target.len() as u64);
}

#[test]
fn a_base_that_is_needed_no_more_is_not_looked_at() {
    let made = made(image(1), image(2), 90 << 20);
    let other = noise(9, made.base.len());
    let mut left = made.target.clone();
    made.apply(&other, &mut left).unwrap();
    left.truncate(made.block());
    let failed = made.apply(&other, &mut left).unwrap_err();
    assert!(matches!(failed, ApplyError::OtherBase { .. }), "{failed:?}");
    assert!(left == made.target[..left.len()]);
}

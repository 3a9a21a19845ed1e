//! A ramdisk: a cpio archive of the form "newc", packed by gzip, xz or not at all.

use std::io::{Read, Write};

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{Check, Stream};
use liblzma::write::XzEncoder;

/// Largest ramdisk, unpacked, in bytes.
const MAX_RAMDISK: u64 = 1 << 30;

/// Length of a member's head, in bytes.
const HEAD: usize = 110;

/// Memory for unpacking xz.
const DECODER_MEMORY: u64 = 100 << 20;

/// The last member's name.
const TRAILER: &[u8] = b"TRAILER!!!";

/// How a ramdisk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Plain,
}

/// Unpacks a ramdisk as its first bytes say.
pub(super) fn unpack(packed: &[u8]) -> anyhow::Result<(Vec<u8>, Packing)> {
    let mut archive = Vec::new();
    let packing = if packed.starts_with(b"\x1f\x8b\x08") {
        let decoder = MultiGzDecoder::new(packed);
        decoder.take(MAX_RAMDISK).read_to_end(&mut archive)?;
        Packing::Gzip
    } else if packed.starts_with(b"\xfd7zXZ\0") {
        let stream = Stream::new_stream_decoder(DECODER_MEMORY, 0)?;
        let decoder = XzDecoder::new_stream(packed, stream);
        decoder.take(MAX_RAMDISK).read_to_end(&mut archive)?;
        Packing::Xz
    } else {
        archive.extend_from_slice(packed);
        Packing::Plain
    };
    Ok((archive, packing))
}

impl Packing {
    /// Packs an archive again. The kernel reads only CRC32 in xz.
    pub(super) fn pack(self, archive: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(archive)?;
                encoder.finish()?
            }
            Self::Xz => {
                let stream = Stream::new_easy_encoder(9, Check::Crc32)?;
                let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(archive)?;
                encoder.finish()?
            }
            Self::Plain => archive.to_vec(),
        })
    }
}

/// A member: its head as it is, its name and its content.
struct Member<'a> {
    head: [u8; HEAD],
    name: &'a [u8],
    content: &'a [u8],
}

/// The archive with the keyring `name` in the place of the one that is there, or in `etc`.
pub(super) fn with_keyring(
    archive: &[u8],
    name: &str,
    keyring: &[Vec<u8>; 2],
) -> anyhow::Result<Vec<u8>> {
    let mut members = parse(archive)?;
    let usr = format!("usr/share/system-image/{name}.tar.xz");
    let has = |path: &str| members.iter().any(|m| plain(m.name) == path.as_bytes());
    let directory = if has(&usr) {
        "usr/share/system-image"
    } else {
        "etc/system-image"
    };
    let names = ["", ".asc"].map(|end| format!("{directory}/{name}.tar.xz{end}"));
    let mut added = Vec::new();
    let mut number = members
        .iter()
        .filter_map(|m| field(&m.head, 6))
        .max()
        .unwrap_or(0);
    let mut head = |mode: u32, links: u32| {
        number += 1;
        let mut head = [b'0'; HEAD];
        head[..6].copy_from_slice(b"070701");
        for (at, value) in [(6, number), (14, mode), (38, links)] {
            set(&mut head, at, value);
        }
        head
    };
    let parents = [directory.split('/').next().unwrap_or(directory), directory];
    for parent in parents {
        if !has(parent) {
            added.push((head(0o040_755, 2), parent.as_bytes(), &b""[..]));
        }
    }
    for (name, content) in names.iter().zip(keyring) {
        match members
            .iter_mut()
            .find(|m| plain(m.name) == name.as_bytes())
        {
            Some(member) => member.content = content,
            None => added.push((head(0o100_644, 1), name.as_bytes(), content)),
        }
    }
    let added = added.into_iter().map(|(head, name, content)| Member {
        head,
        name,
        content,
    });
    let mut out = Vec::new();
    for member in members.into_iter().chain(added) {
        write(&mut out, &member)?;
    }
    let mut head = [b'0'; HEAD];
    head[..6].copy_from_slice(b"070701");
    set(&mut head, 38, 1);
    write(
        &mut out,
        &Member {
            head,
            name: TRAILER,
            content: b"",
        },
    )?;
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

fn plain(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    name.strip_prefix(b"/").unwrap_or(name)
}

/// The members up to the trailer.
fn parse(archive: &[u8]) -> anyhow::Result<Vec<Member<'_>>> {
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        let cut = "it is cut off";
        let head = archive.get(at..at + HEAD).context(cut)?;
        let head: [u8; HEAD] = head.try_into().context(cut)?;
        if !head.starts_with(b"070701") && !head.starts_with(b"070702") {
            bail!("it is no cpio archive of the new form");
        }
        let number = |at| field(&head, at).context("a number in it is damaged");
        let (content_len, name_len) = (number(54)? as usize, number(94)? as usize);
        ensure!(name_len > 0, "a member has no name");
        let name_at = at + HEAD;
        let content_at = (name_at + name_len).next_multiple_of(4);
        let name = archive.get(name_at..name_at + name_len - 1).context(cut)?;
        let content = archive
            .get(content_at..)
            .and_then(|rest| rest.get(..content_len))
            .context(cut)?;
        if name == TRAILER {
            return Ok(members);
        }
        at = (content_at + content_len).next_multiple_of(4);
        members.push(Member {
            head,
            name,
            content,
        });
    }
}

fn write(out: &mut Vec<u8>, member: &Member<'_>) -> anyhow::Result<()> {
    let mut head = member.head;
    set(&mut head, 54, u32::try_from(member.content.len())?);
    set(&mut head, 94, u32::try_from(member.name.len() + 1)?);
    out.extend_from_slice(&head);
    out.extend_from_slice(member.name);
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(member.content);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

/// The number at this place of a head: eight hexadecimal digits.
fn field(head: &[u8; HEAD], at: usize) -> Option<u32> {
    let digits = std::str::from_utf8(&head[at..at + 8]).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

fn set(head: &mut [u8; HEAD], at: usize, value: u32) {
    head[at..at + 8].copy_from_slice(format!("{value:08X}").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// An archive by the real `cpio`.
    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let place = tempfile::tempdir().unwrap();
        let mut names = String::new();
        for (path, content) in files {
            let file = place.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
            let parts: Vec<_> = path.split('/').collect();
            for at in 1..=parts.len() {
                names += &format!("{}\n", parts[..at].join("/"));
            }
        }
        let mut child = Command::new("cpio")
            .args(["-o", "-H", "newc", "--quiet"])
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(names.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().stdout
    }

    /// What the real `cpio` finds in an archive.
    fn listed(archive: &[u8]) -> Vec<String> {
        let mut child = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let names = String::from_utf8(output.stdout).unwrap();
        names.lines().map(str::to_owned).collect()
    }

    fn content<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let members = parse(archive).unwrap();
        members
            .into_iter()
            .find(|m| m.name == name.as_bytes())
            .map(|m| m.content)
    }

    #[test]
    fn a_keyring_is_replaced_where_it_is_or_added() {
        let keyring = [b"new keyring".to_vec(), b"its signature".to_vec()];
        let place = "usr/share/system-image/archive-master.tar.xz";
        let old = archive(&[
            ("init", "#!x"),
            (place, "old"),
            (&format!("{place}.asc"), "s"),
        ]);
        let new = with_keyring(&old, "archive-master", &keyring).unwrap();
        assert_eq!(content(&new, place).unwrap(), keyring[0]);
        assert_eq!(content(&new, &format!("{place}.asc")).unwrap(), keyring[1]);
        assert_eq!(content(&new, "init").unwrap(), b"#!x");
        assert_eq!(listed(&new).len(), listed(&old).len());
        let bare = archive(&[("init", "#!x")]);
        let new = with_keyring(&bare, "archive-master", &keyring).unwrap();
        let etc = "etc/system-image/archive-master.tar.xz";
        let want = [
            "init",
            "etc",
            "etc/system-image",
            etc,
            &format!("{etc}.asc"),
        ];
        assert_eq!(listed(&new), want);
    }

    #[test]
    fn each_packing_survives_and_garbage_is_refused() {
        let archive = archive(&[("init", "#!x")]);
        for packing in [Packing::Gzip, Packing::Xz, Packing::Plain] {
            let packed = packing.pack(&archive).unwrap();
            assert_eq!(unpack(&packed).unwrap(), (archive.clone(), packing));
        }
        for len in 0..archive.len().min(200) {
            assert!(parse(&archive[..len]).is_err(), "{len}");
        }
        assert!(parse(&[b'x'; 300]).is_err());
    }
}

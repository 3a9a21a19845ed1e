//! Writes archives in the one form that every device reads (server spec, section 9): GNU tar
//! with `L`/`K` long names and base-256 numbers, numeric owners, no owner names.
//!
//! A member with extended attributes gets a pax `x` header in front that holds only these. GNU
//! tar and our device read it; the tar of old recoveries skips it and still finds a complete
//! GNU member behind.

use std::io::{self, Read, Write};

use system_image_delta::tar::BLOCK;
use system_image_delta::{Header, Kind, Xattr};

/// Archives are padded to a multiple of this, as GNU tar does.
const RECORD: u64 = 10_240;

/// Size of the buffer through which content is copied, in bytes.
const COPY_BUFFER: usize = 256 << 10;

/// Writes an archive to `W`. Without [`finish`](Self::finish) it has no end mark and no reader
/// accepts it.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    written: u64,
    buffer: Box<[u8]>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            written: 0,
            buffer: vec![0; COPY_BUFFER].into(),
        }
    }

    /// Adds a member. A file's content is read from `content`, exactly as long as its header
    /// says; other members have none. Owners and link targets are written as given.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if `content` ends before the file does.
    pub fn member(&mut self, header: &Header, content: &mut impl Read) -> io::Result<()> {
        if !header.xattrs.is_empty() {
            self.extension(b'x', b"././@PaxHeader", &records(&header.xattrs))?;
        }
        let (flag, size, link): (u8, u64, &[u8]) = match &header.kind {
            Kind::File { size } => (b'0', *size, b""),
            Kind::HardLink { target } => (b'1', 0, target),
            Kind::Symlink { target } => (b'2', 0, target),
            Kind::CharDevice(_) => (b'3', 0, b""),
            Kind::BlockDevice(_) => (b'4', 0, b""),
            Kind::Directory => (b'5', 0, b""),
            Kind::Fifo => (b'6', 0, b""),
        };
        // By custom a directory's name ends with a slash; old readers tell it by that.
        let mut path = header.path.clone();
        if header.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        for (flag, name) in [(b'K', link), (b'L', &path)] {
            if name.len() > 100 {
                self.extension(flag, b"././@LongLink", &[name, b"\0"].concat())?;
            }
        }
        let mut block = [0; BLOCK];
        put_name(&mut block[0..100], &path);
        put_name(&mut block[157..257], link);
        block[156] = flag;
        put_number(&mut block[100..108], header.mode.into());
        put_number(&mut block[108..116], header.uid.into());
        put_number(&mut block[116..124], header.gid.into());
        put_number(&mut block[124..136], size.into());
        put_number(&mut block[136..148], header.mtime.seconds.into());
        if let Kind::CharDevice(device) | Kind::BlockDevice(device) = &header.kind {
            put_number(&mut block[329..337], device.major.into());
            put_number(&mut block[337..345], device.minor.into());
        }
        self.block(block)?;
        self.copy(content, size)
    }

    /// Writes the end mark and the padding. Returns the output and the archive's length.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let end = (self.written + 2 * BLOCK as u64).next_multiple_of(RECORD);
        self.zeros(end - self.written)?;
        self.output.flush()?;
        Ok((self.output, self.written))
    }

    /// A header that belongs to the next one.
    fn extension(&mut self, flag: u8, name: &[u8], data: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        put_name(&mut block[0..100], name);
        block[156] = flag;
        put_number(&mut block[100..108], 0o644);
        put_number(&mut block[108..116], 0);
        put_number(&mut block[116..124], 0);
        put_number(&mut block[124..136], data.len() as i128);
        put_number(&mut block[136..148], 0);
        self.block(block)?;
        self.bytes(data)?;
        self.zeros(self.written.wrapping_neg() % BLOCK as u64)
    }

    fn block(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes(&block)
    }

    fn copy(&mut self, content: &mut impl Read, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let got = match content.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.output.write_all(&self.buffer[..got])?;
            self.written += got as u64;
            left -= got as u64;
        }
        self.zeros(self.written.wrapping_neg() % BLOCK as u64)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.written += io::copy(&mut io::repeat(0).take(len), &mut self.output)?;
        Ok(())
    }
}

/// A name that is too long is cut: its whole form stands in the header before.
fn put_name(field: &mut [u8], name: &[u8]) {
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
}

/// Octal with a final NUL where it fits, else base-256.
fn put_number(field: &mut [u8], value: i128) {
    let digits = field.len() - 1;
    if (0..1_i128 << (3 * digits)).contains(&value) {
        let text = format!("{value:0digits$o}\0");
        field.copy_from_slice(text.as_bytes());
    } else {
        let bytes = value.to_be_bytes();
        field.copy_from_slice(&bytes[bytes.len() - field.len()..]);
        field[0] |= 0x80;
    }
}

/// Extended attributes as pax records, each `LENGTH KEYWORD=VALUE\n`.
fn records(xattrs: &[Xattr]) -> Vec<u8> {
    let mut records = Vec::new();
    for Xattr { name, value } in xattrs {
        let body = [b" SCHILY.xattr.", &name[..], b"=", value, b"\n"].concat();
        // The length counts its own digits.
        let mut len = body.len() + 1;
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        records.extend_from_slice(len.to_string().as_bytes());
        records.extend_from_slice(&body);
    }
    records
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use system_image_delta::{Device, Limits, Mtime, Reader};

    use super::*;

    fn header() -> impl Strategy<Value = Header> {
        let name = proptest::collection::vec(1..=255_u8, 1..300)
            .prop_filter("a slash would make a file a directory", |name| {
                !name.ends_with(b"/")
            });
        let device =
            (0..1_u32 << 12, 0..1_u32 << 20).prop_map(|(major, minor)| Device { major, minor });
        let kind = prop_oneof![
            (0..2000_u64).prop_map(|size| Kind::File { size }),
            name.clone().prop_map(|target| Kind::HardLink { target }),
            name.clone().prop_map(|target| Kind::Symlink { target }),
            Just(Kind::Directory),
            Just(Kind::Fifo),
            device.clone().prop_map(Kind::CharDevice),
            device.prop_map(Kind::BlockDevice),
        ];
        let bytes = || proptest::collection::vec(any::<u8>(), 0..120);
        let xattrs = proptest::collection::btree_map("user\\.[a-z]{1,9}", bytes(), 0..3);
        (
            name,
            kind,
            0..0o10000_u32,
            0..u32::MAX,
            0..u32::MAX,
            any::<i64>(),
            xattrs,
        )
            .prop_map(|(path, kind, mode, uid, gid, seconds, xattrs)| Header {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime: Mtime { seconds, nanos: 0 },
                xattrs: xattrs
                    .into_iter()
                    .map(|(name, value)| Xattr {
                        name: name.into_bytes(),
                        value,
                    })
                    .collect(),
                acl: false,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(headers in proptest::collection::vec(header(), 0..6)) {
            let mut writer = Writer::new(Vec::new());
            for header in &headers {
                writer.member(header, &mut io::repeat(b'x')).unwrap();
            }
            let (archive, len) = writer.finish().unwrap();
            prop_assert_eq!((archive.len() as u64, len % RECORD), (len, 0));
            let mut reader = Reader::new(&archive[..], Limits::default());
            for mut want in headers {
                if want.kind == Kind::Directory {
                    want.path.push(b'/');
                }
                let got = reader.next_header().unwrap();
                prop_assert_eq!(got.as_ref(), Some(&want));
                let mut content = Vec::new();
                reader.read_to_end(&mut content).unwrap();
                let size = if let Kind::File { size } = want.kind { size } else { 0 };
                prop_assert!(content.len() as u64 == size && content.iter().all(|&b| b == b'x'));
            }
            prop_assert!(reader.next_header().unwrap().is_none());
        }
    }
}

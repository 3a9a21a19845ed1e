//! Archives byte by byte, as no honest tool writes them.

use system_image_testkit::tree::TIME;

const BLOCK: usize = 512;

/// A member: its header's bytes, which a case may spoil, with what stands before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    before: Vec<u8>,
    block: [u8; BLOCK],
    content: Vec<u8>,
    is_sealed: bool,
}

impl Entry {
    /// A member of this type flag, whose size is that of its content.
    pub(crate) fn new(name: impl AsRef<[u8]>, flag: u8, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        let name = name.as_ref();
        let mut block = [0; BLOCK];
        let short = &name[..name.len().min(100)];
        block[..short.len()].copy_from_slice(short);
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar  \0");
        let entry = Self {
            before: Vec::new(),
            block,
            content,
            is_sealed: true,
        };
        let mode = if flag == b'5' { 0o755 } else { 0o644 };
        let size = entry.content.len() as u64;
        let entry = entry.octal(108, 8, 0).octal(116, 8, 0).mode(mode);
        let entry = entry.size(size).octal(136, 12, TIME.cast_unsigned());
        if name.len() > 100 {
            entry.long(b'L', name)
        } else {
            entry
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) -> Self {
        Self::new(name, b'0', content)
    }

    pub(crate) fn dir(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'5', "")
    }

    pub(crate) fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'2', "").target(target)
    }

    pub(crate) fn hard(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'1', "").target(target)
    }

    pub(crate) fn fifo(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'6', "")
    }

    /// A block device: nobody has a driver of a number that large.
    pub(crate) fn device(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'4', "")
            .octal(329, 8, 511)
            .octal(337, 8, 7)
    }

    /// Writes these bytes into the header.
    pub(crate) fn put(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Writes a number into a field of this width.
    pub(crate) fn octal(self, at: usize, width: usize, value: u64) -> Self {
        let digits = width - 1;
        self.put(at, format!("{value:0digits$o}\0"))
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    fn target(self, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref();
        let entry = self.put(157, &target[..target.len().min(100)]);
        if target.len() > 100 {
            entry.long(b'K', target)
        } else {
            entry
        }
    }

    /// Puts a long name (`L`) or link target (`K`) in front.
    pub(crate) fn long(self, flag: u8, text: impl AsRef<[u8]>) -> Self {
        let text = [text.as_ref(), b"\0"].concat();
        self.after(&Self::new("././@LongLink", flag, text))
    }

    /// Puts pax records in front.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.after(&Self::new("pax", b'x', records_of(records)))
    }

    /// Puts another member's bytes in front.
    pub(crate) fn after(mut self, other: &Self) -> Self {
        self.before.extend(other.bytes());
        self
    }

    /// With a checksum that does not fit.
    pub(crate) fn unsealed(mut self) -> Self {
        self.is_sealed = false;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        let sum = sum + u32::from(!self.is_sealed);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let padding = vec![0; self.content.len().wrapping_neg() % BLOCK];
        [&*self.before, &block, &self.content, &padding].concat()
    }
}

/// Pax records with their lengths.
pub(crate) fn records_of(records: &[(&str, &[u8])]) -> Vec<u8> {
    let record = |(key, value): &(&str, &[u8])| {
        let rest = key.len() + value.len() + 3;
        let fits = |digits: &usize| (rest + digits).to_string().len() == *digits;
        let len = rest + (1..8).find(fits).unwrap();
        [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
    };
    records.iter().flat_map(record).collect()
}

/// An archive of these members, with its end.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = without_end(entries);
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// The same, cut off before its end.
pub(crate) fn without_end(entries: &[Entry]) -> Vec<u8> {
    entries
        .iter()
        .map(Entry::bytes)
        .collect::<Vec<_>>()
        .concat()
}

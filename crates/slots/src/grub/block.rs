//! GRUB's environment block: a file of fixed size with variables, padded with `#`.
//!
//! In: the file's bytes. Out: the values in it, or all its bytes with some variables changed and
//! the others kept. Ours stand first, in a section whose length stays the same, so that setting
//! them moves nothing and changes one sector only.

use std::iter;
use std::ops::Range;

/// What a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// What a block begins with.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// Length of the section for our variables, in bytes: two slots with long names and 60 tries. With
/// GRUB's own two lines of comment before it, it ends in the first sector.
const SECTION: usize = 160;

/// The shortest line that fills the section, in bytes: an empty one is no comment.
const MIN_FILLER: usize = 2;

/// An environment block that GRUB can read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// The lines after the signature, each with its line end.
    lines: Vec<Range<usize>>,
}

impl Block {
    /// Reads a block; the error says what is wrong with it.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if !bytes.starts_with(SIGNATURE) {
            return Err("it is no environment block");
        }
        let padding = bytes.iter().rev().take_while(|byte| **byte == b'#').count();
        let end = bytes.len() - padding;
        let mut lines = Vec::new();
        let mut start = SIGNATURE.len();
        while start < end {
            let line = start..line_end(&bytes[..end], start).ok_or("a line has no end")?;
            start = line.end;
            lines.push(line);
        }
        Ok(Self { bytes, lines })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A variable's value; GRUB takes the last one of several. Values of ours have nothing that
    /// would be escaped, so an escaped one is none of them.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.lines()
            .filter_map(|line| value(line, name))
            .next_back()
    }

    /// The block with `variables` in place of all variables of `names`, of the same size; `None`
    /// if they do not fit.
    pub(super) fn with(&self, variables: &[(&str, String)], names: &[&str]) -> Option<Vec<u8>> {
        let ours: String = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        let is_comment = |line: &&[u8]| line.starts_with(b"#");
        let is_filler = |line: &[u8]| line.trim_ascii_end().iter().all(|byte| *byte == b'#');
        let is_ours = |line: &[u8]| names.iter().any(|name| value(line, name).is_some());
        let kept = |line: &&[u8]| !is_filler(line) && !is_ours(line);

        // The section is as long as ever. Where others have left less room, it is what is left.
        let head = self.lines().take_while(is_comment).filter(kept).count();
        let others: usize = self.lines().filter(kept).map(<[u8]>::len).sum();
        let room = self.bytes.len().checked_sub(SIGNATURE.len() + others)?;
        let free = room.checked_sub(ours.len())?;
        let filler = SECTION.saturating_sub(ours.len()).max(MIN_FILLER);
        let filler = if filler <= free { filler } else { 0 };
        let mut new = SIGNATURE.to_vec();
        let mut lines = self.lines().filter(kept);
        lines.by_ref().take(head).for_each(|line| new.extend(line));
        new.extend(ours.as_bytes());
        if let Some(hashes) = filler.checked_sub(1) {
            new.extend(iter::repeat_n(b'#', hashes));
            new.push(b'\n');
        }
        lines.for_each(|line| new.extend(line));
        new.resize(self.bytes.len(), b'#');
        Some(new)
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines.iter().map(|line| &self.bytes[line.clone()])
    }
}

/// The value if the line is of this variable.
fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    value.strip_suffix(b"\n")
}

/// Where the line ends that starts here; a backslash takes the next byte into the line.
fn line_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut place = start;
    while place < bytes.len() {
        match bytes[place] {
            b'\n' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 2] = ["ours", "also_ours"];

    fn block(lines: &str, size: usize) -> Block {
        let mut bytes = [SIGNATURE, lines.as_bytes()].concat();
        assert!(bytes.len() <= size);
        bytes.resize(size, b'#');
        Block::parse(bytes).unwrap()
    }

    fn set(block: &Block, value: &str) -> Option<Block> {
        let bytes = block.with(&[("ours", value.to_owned())], &NAMES)?;
        Some(Block::parse(bytes).unwrap())
    }

    #[test]
    fn others_variables_and_comments_are_kept_as_they_are() {
        let lines = "# WARNING\nours=1\nx=a\\\\b\\\nours=no\nalso_ours=2\nours=2\n# note\ny=\n";
        let old = block(lines, 1024);
        assert_eq!(old.value("ours"), Some(&b"2"[..]), "the last one counts");
        assert_eq!(old.value("x"), Some(&b"a\\\\b\\\nours=no"[..]));
        let new = set(&old, "3").unwrap();
        let kept = |block: &Block| -> Vec<Vec<u8>> {
            let lines = block.lines().map(<[u8]>::to_vec);
            lines.filter(|line| !line.starts_with(b"##")).collect()
        };
        let wanted: [&[u8]; 5] = [
            b"# WARNING\n",
            b"ours=3\n",
            b"x=a\\\\b\\\nours=no\n",
            b"# note\n",
            b"y=\n",
        ];
        assert_eq!(kept(&new), wanted);
        assert_eq!(new.bytes().len(), 1024);
        assert_eq!(new.with(&[], &NAMES).unwrap().len(), 1024);
    }

    #[test]
    fn once_the_section_is_there_a_change_is_in_the_first_sector() {
        let others = format!("x={}\n", "v".repeat(700));
        let old = set(&block(&format!("# WARNING\n{others}"), 1024), "1").unwrap();
        for value in ["", "2", "something longer", &"1".repeat(100)] {
            let new = set(&old, value).unwrap();
            assert_eq!(old.bytes()[SECTOR..], new.bytes()[SECTOR..], "{value}");
        }
    }

    #[test]
    fn a_full_block_gives_its_last_byte_and_no_more() {
        let others = format!("x={}\n", "v".repeat(1024 - SIGNATURE.len() - 3 - 7));
        let old = block(&others, 1024);
        let new = set(&old, "1").unwrap();
        assert_eq!(new.value("ours"), Some(&b"1"[..]));
        assert!(new.bytes().ends_with(b"v\n"));
        assert!(set(&old, "12").is_none());
        assert!(set(&new, "2").is_some());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for bytes in [
            "",
            "# GRUB",
            "x=1\n",
            "# GRUB Environment Block\nx=1",
            "# GRUB Environment Block\nx\\\n##",
        ] {
            assert!(Block::parse(bytes.into()).is_err(), "{bytes:?}");
        }
        assert!(
            Block::parse(SIGNATURE.to_vec())
                .unwrap()
                .with(&[], &NAMES)
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn any_block_is_refused_or_keeps_what_others_have(
            lines in "(#{0,3}|ours=|x=|[a-z\\\\\n=#]){0,80}",
            size in 0usize..400,
            value in "[01]{0,200}",
        ) {
            let mut bytes = [SIGNATURE, lines.as_bytes()].concat();
            bytes.resize(bytes.len() + size, b'#');
            let Ok(old) = Block::parse(bytes) else { return Ok(()) };
            let Some(new) = set(&old, &value) else { return Ok(()) };
            prop_assert_eq!(new.bytes().len(), old.bytes().len());
            prop_assert_eq!(new.value("ours"), Some(value.as_bytes()));
            prop_assert_eq!(new.value("x"), old.value("x"));
            let again = set(&new, &value).unwrap();
            prop_assert_eq!(again.bytes(), new.bytes());
        }
    }
}

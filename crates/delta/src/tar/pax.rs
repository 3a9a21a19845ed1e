//! Pax extended headers: `LENGTH KEYWORD=VALUE\n`, of which the keywords that matter here.

use super::header::{Mtime, Xattr};

/// What the extended headers in front of a member say.
#[derive(Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) acl: bool,
    pub(super) sparse: SparseKeys,
}

/// The `GNU.sparse.*` keywords, of all three versions of that format.
#[derive(Default)]
pub(super) struct SparseKeys {
    pub(super) name: Option<Vec<u8>>,
    /// `realsize` of version 1.0, `size` of the older ones.
    pub(super) real_size: Option<u64>,
    pub(super) major: Option<u64>,
    /// Offsets and lengths in turn, from `map` or from the pairs of version 0.0.
    pub(super) numbers: Vec<u64>,
    pub(super) has_map: bool,
}

impl Extension {
    /// Adds the records of one `x` block. A later record of the same keyword replaces the first.
    pub(super) fn add(&mut self, mut block: &[u8]) -> Result<(), &'static str> {
        // Some writers pad the block itself with NULs.
        while !block.is_empty() && block[0] != 0 {
            let (record, rest) = split_record(block).ok_or("extended header")?;
            let equals = record
                .iter()
                .position(|&b| b == b'=')
                .ok_or("extended header")?;
            self.record(&record[..equals], &record[equals + 1..])?;
            block = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("number in an extended header");
        let signed = || number().and_then(|n| i64::try_from(n).map_err(|_| "number too large"));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(signed()?),
            b"uid" => self.uid = Some(signed()?),
            b"gid" => self.gid = Some(signed()?),
            b"mtime" => self.mtime = Some(mtime(value).ok_or("time in an extended header")?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.numblocks" => self.sparse.has_map = true,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(number()?),
            b"GNU.sparse.map" => {
                self.sparse.has_map = true;
                self.sparse.numbers = value
                    .split(|&b| b == b',')
                    .filter(|n| !n.is_empty())
                    .map(|n| decimal(n).ok_or("sparse map"))
                    .collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec(), true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decoded(name).ok_or("attribute name")?;
                    let value = base64_decoded(value).ok_or("attribute value")?;
                    self.xattr(name, value, false)?;
                } else if key.starts_with(b"SCHILY.acl.") {
                    self.acl = true;
                }
            }
        }
        Ok(())
    }

    /// Writers that use both forms say the same in both; the plain one wins.
    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>, plain: bool) -> Result<(), &'static str> {
        if name.is_empty() || name.contains(&0) {
            return Err("attribute name");
        }
        match self.xattrs.binary_search_by(|x| x.name.cmp(&name)) {
            Ok(at) if plain => self.xattrs[at].value = value,
            Ok(_) => {}
            Err(at) => self.xattrs.insert(at, Xattr { name, value }),
        }
        Ok(())
    }
}

/// Whether a global (`g`) block only holds what no reader has to act on.
///
/// One that sets owners or times for all later members is legal and never written for images;
/// obeying it half would be worse than refusing it.
pub(super) fn global_is_harmless(block: &[u8]) -> Result<bool, &'static str> {
    let mut block = block;
    while !block.is_empty() && block[0] != 0 {
        let (record, rest) = split_record(block).ok_or("global header")?;
        if !record.starts_with(b"comment=") {
            return Ok(false);
        }
        block = rest;
    }
    Ok(true)
}

/// The first record without its length and newline, and what follows it.
fn split_record(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = block.iter().take(20).position(|&b| b == b' ')?;
    let len = usize::try_from(decimal(&block[..blank])?).ok()?;
    let record = block.get(blank + 1..len)?;
    Some((record.strip_suffix(b"\n")?, &block[len..]))
}

/// A plain decimal number, at most 19 digits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}

/// `1700000000.25`, `-1.5`: the fraction is cut after the ninth digit, towards the past.
fn mtime(text: &[u8]) -> Option<Mtime> {
    const NANOS: u32 = 1_000_000_000;
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |&b| b == b'.');
    let seconds = i64::try_from(decimal(halves.next()?)?).ok()?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |d| u32::from(d - b'0'));
    let nanos = (0..9).fold(0, |n, at| n * 10 + digit(at));
    Some(match (negative, nanos) {
        (false, _) => Mtime { seconds, nanos },
        (true, 0) => Mtime {
            seconds: -seconds,
            nanos: 0,
        },
        (true, _) => Mtime {
            seconds: -seconds - 1,
            nanos: NANOS - nanos,
        },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(*bytes.next()?).to_digit(16);
            let value = digit()? << 4 | digit()?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// Base 64 without or with padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let text = text.trim_ascii_end();
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text[..text.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            bits = bits << 6 | u32::from(digit(byte)?);
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut len = body + body.to_string().len();
        if len.to_string().len() != body.to_string().len() {
            len += 1;
        }
        [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_are_read() {
        let block = [
            record("path", b"a\nb=c"),
            record("mtime", b"1700000000.25"),
            record("uid", b"3000000"),
            record("LIBARCHIVE.xattr.user.a%3db", b"AQID"),
            record("SCHILY.xattr.security.capability", b"\0\x01\n=\xff"),
            record("SCHILY.acl.access", b"user::rw-"),
        ]
        .concat();
        let mut extension = Extension::default();
        extension.add(&block).unwrap();
        assert_eq!(extension.path.unwrap(), b"a\nb=c");
        assert_eq!(
            extension.mtime,
            Some(Mtime {
                seconds: 1_700_000_000,
                nanos: 250_000_000
            })
        );
        assert_eq!(extension.uid, Some(3_000_000));
        assert!(extension.acl);
        let xattrs: Vec<_> = extension
            .xattrs
            .into_iter()
            .map(|x| (x.name, x.value))
            .collect();
        assert_eq!(
            xattrs,
            [
                (b"security.capability".to_vec(), b"\0\x01\n=\xff".to_vec()),
                (b"user.a=b".to_vec(), vec![1, 2, 3]),
            ]
        );
    }

    #[test]
    fn times_before_1970_are_exact() {
        for (text, seconds, nanos) in [
            (&b"-1"[..], -1, 0),
            (b"-1.5", -2, 500_000_000),
            (b"0.1234567899", 0, 123_456_789),
        ] {
            assert_eq!(mtime(text), Some(Mtime { seconds, nanos }));
        }
        assert_eq!(mtime(b"1.5e3"), None);
        assert_eq!(mtime(b""), None);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for block in [
            &b"99 path=x\n"[..],
            b"3 path=x\n",
            b"0 \n",
            b"x",
            b"9 path=xy",
        ] {
            assert!(Extension::default().add(block).is_err(), "{block:?}");
        }
    }
}

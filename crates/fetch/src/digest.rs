//! Digests of the six kinds that callers name, and how they are computed.

use std::fmt;
use std::io;
use std::str::FromStr;

use sha2::Digest as _;
use system_image_formats::checksum::Sha256;

/// How a digest is computed. Its text is lower case; any case is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5, good against accidents only.
    Md5,
    /// SHA-1, good against accidents only.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// Its name, as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of its digests, in bytes.
    const fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let found = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| DigestError::Algorithm(text.to_owned()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Nobody knows that algorithm.
    #[error("`{0}` is none of md5, sha1, sha224, sha256, sha384 and sha512")]
    Algorithm(String),
    /// The digits are too few, too many, or none.
    #[error("a digest of {0} has {digits} hexadecimal digits", digits = 2 * .0.len())]
    Digits(Algorithm),
}

/// A digest of any of the kinds. Its text is lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Digest {
    /// Reads hexadecimal digits of either case, exactly as many as the algorithm has.
    pub fn parse(algorithm: Algorithm, digits: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError::Digits(algorithm);
        if digits.len() != 2 * algorithm.len() {
            return Err(wrong());
        }
        let byte = |pair: &[u8]| {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(wrong);
            let value = digit(pair[0])? << 4 | digit(pair[1])?;
            Ok(u8::try_from(value).expect("two digits are a byte"))
        };
        let bytes = digits.as_bytes().chunks_exact(2).map(byte);
        Ok(Self {
            algorithm,
            bytes: bytes.collect::<Result<_, _>>()?,
        })
    }

    /// How it was computed.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The same as the type that the indexes use, if it is a SHA-256.
    pub fn sha256(&self) -> Option<Sha256> {
        let bytes: [u8; 32] = (*self.bytes).try_into().ok()?;
        (self.algorithm == Algorithm::Sha256).then(|| bytes.into())
    }

    fn of(algorithm: Algorithm, computed: &[u8]) -> Self {
        Self {
            algorithm,
            bytes: computed.into(),
        }
    }
}

impl From<Sha256> for Digest {
    fn from(digest: Sha256) -> Self {
        Self::of(Algorithm::Sha256, digest.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes.iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.algorithm)
    }
}

/// Computes a digest.
#[derive(Clone, Debug)]
pub(crate) enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha224 => Self::Sha224(sha2::Sha224::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha224(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Md5(hasher) => Digest::of(Algorithm::Md5, &hasher.finalize()),
            Self::Sha1(hasher) => Digest::of(Algorithm::Sha1, &hasher.finalize()),
            Self::Sha224(hasher) => Digest::of(Algorithm::Sha224, &hasher.finalize()),
            Self::Sha256(hasher) => Digest::of(Algorithm::Sha256, &hasher.finalize()),
            Self::Sha384(hasher) => Digest::of(Algorithm::Sha384, &hasher.finalize()),
            Self::Sha512(hasher) => Digest::of(Algorithm::Sha512, &hasher.finalize()),
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_computes_its_own_digest() {
        for (name, want) in [
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "Sha224",
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                "sha256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "sha384",
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                "SHA512",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let algorithm: Algorithm = name.parse().unwrap();
            assert_eq!(algorithm.to_string(), name.to_lowercase());
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            let got = hasher.finish();
            assert_eq!(
                (got.to_string().as_str(), got.algorithm()),
                (want, algorithm)
            );
            let read = Digest::parse(algorithm, &want.to_uppercase());
            assert_eq!(read, Ok(got), "either case is the same digest");
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let unknown: Result<Algorithm, _> = "shq256".parse();
        assert_eq!(unknown, Err(DigestError::Algorithm("shq256".into())));
        assert!("".parse::<Algorithm>().is_err());
        for text in ["", "0", &"0".repeat(31), &"g".repeat(32), &"ä".repeat(16)] {
            let error = Digest::parse(Algorithm::Md5, text).unwrap_err();
            assert_eq!(
                error.to_string(),
                "a digest of md5 has 32 hexadecimal digits",
                "{text}"
            );
        }
    }

    #[test]
    fn a_sha256_is_the_same_in_either_type() {
        let sha256 = Sha256::from([7; 32]);
        assert_eq!(Digest::from(sha256).sha256(), Some(sha256));
        assert_eq!(Digest::of(Algorithm::Md5, &[7; 16]).sha256(), None);
    }
}

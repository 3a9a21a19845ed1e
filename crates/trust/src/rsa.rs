//! Checks RSA signatures of keys as everybody has them: 2048, 3072 or 4096 bits and the exponent
//! 65537.
//!
//! In: a key packet, then digests and signatures. Out: whether the key made them. The library's
//! own check takes any exponent to have 64 bits and works out anew for each signature what depends
//! on the key alone. That takes several times as long, and a server checks thousands of indexes
//! with one key. Nothing is secret here. Other keys are left to the library.

use crypto_bigint::modular::runtime_mod::{DynResidue, DynResidueParams};
use crypto_bigint::{Integer as _, U2048, U3072, U4096, Uint};
use pgp::crypto::hash::HashAlgorithm;

/// Squarings that lead to the power of 65536; one more multiplication makes it 65537.
const SQUARINGS: u32 = 16;

/// The exponent 65537 as it stands in a key packet.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// A key, with what calculations modulo its modulus need.
#[derive(Clone, Debug)]
pub(crate) enum RsaKey {
    Bits2048(Box<DynResidueParams<{ U2048::LIMBS }>>),
    Bits3072(Box<DynResidueParams<{ U3072::LIMBS }>>),
    Bits4096(Box<DynResidueParams<{ U4096::LIMBS }>>),
}

impl RsaKey {
    /// The key of an RSA key packet, if it is such a one.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        // Version, time and algorithm.
        let (modulus, rest) = number(body.get(6..)?)?;
        let (exponent, _) = number(rest)?;
        if exponent != EXPONENT {
            return None;
        }
        match modulus.len() * 8 {
            2048 => ready(modulus).map(Self::Bits2048),
            3072 => ready(modulus).map(Self::Bits3072),
            4096 => ready(modulus).map(Self::Bits4096),
            _ => None,
        }
    }

    /// Whether this is its signature over a digest; `None` if that digest is not known here.
    pub(crate) fn verifies(
        &self,
        hash: HashAlgorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let content = content(hash, digest)?;
        Some(match self {
            Self::Bits2048(modulus) => opens(modulus, signature, &content),
            Self::Bits3072(modulus) => opens(modulus, signature, &content),
            Self::Bits4096(modulus) => opens(modulus, signature, &content),
        })
    }
}

/// A number as it stands in a packet, behind its length in bits, and what follows it.
fn number(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bits, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*bits)).div_ceil(8))
}

fn ready<const LIMBS: usize>(modulus: &[u8]) -> Option<Box<DynResidueParams<LIMBS>>> {
    let modulus = Uint::from_be_slice(modulus);
    let is_odd = bool::from(modulus.is_odd());
    is_odd.then(|| Box::new(DynResidueParams::new(&modulus)))
}

/// What the signature of a digest holds: which digest it is, and the digest (RFC 8017, section 9.2,
/// `T` of note 1).
fn content(hash: HashAlgorithm, digest: &[u8]) -> Option<Vec<u8>> {
    // The last number of its name; all begin with those of NIST's digests.
    let name = match hash {
        HashAlgorithm::Sha256 => 1,
        HashAlgorithm::Sha384 => 2,
        HashAlgorithm::Sha512 => 3,
        HashAlgorithm::Sha224 => 4,
        HashAlgorithm::Sha3_256 => 8,
        HashAlgorithm::Sha3_512 => 10,
        _ => return None,
    };
    let len = u8::try_from(digest.len()).ok().filter(|len| *len <= 64)?;
    let nist = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let outer = [0x30, 17 + len, 0x30, 13, 0x06, 9];
    Some([&outer[..], &nist, &[name, 0x05, 0, 0x04, len], digest].concat())
}

/// Whether the signature to the power of 65537 is `content`, padded.
fn opens<const LIMBS: usize>(
    modulus: &DynResidueParams<LIMBS>,
    signature: &[u8],
    content: &[u8],
) -> bool {
    let len = Uint::<LIMBS>::BYTES;
    // Zeros in front are left out of a packet.
    let Some(zeros) = len.checked_sub(signature.len()) else {
        return false;
    };
    let signature = Uint::from_be_slice(&[&vec![0; zeros], signature].concat());
    if signature >= *modulus.modulus() {
        return false;
    }
    let ones = vec![0xff; len - content.len() - 3];
    let padded = Uint::from_be_slice(&[&[0, 1], &ones[..], &[0], content].concat());
    let base = DynResidue::new(&signature, *modulus);
    let power = (0..SQUARINGS).fold(base, |power, _| power.square());
    (power * base).retrieve() == padded
}

#[cfg(test)]
mod tests {
    use pgp::composed::KeyType;
    use pgp::packet::{PubKeyInner, PublicKey, SecretKey};
    use pgp::ser::Serialize as _;
    use pgp::types::{KeyVersion, Mpi, Password, SignatureBytes, SigningKey as _};
    use pgp::types::{Timestamp, VerifyingKey as _};
    use rand_core::OsRng;

    use super::*;

    const DIGESTS: [(HashAlgorithm, usize); 6] = [
        (HashAlgorithm::Sha224, 28),
        (HashAlgorithm::Sha256, 32),
        (HashAlgorithm::Sha384, 48),
        (HashAlgorithm::Sha512, 64),
        (HashAlgorithm::Sha3_256, 32),
        (HashAlgorithm::Sha3_512, 64),
    ];

    fn generate(bits: u32) -> (PublicKey, SecretKey) {
        let kind = KeyType::Rsa(bits);
        let (public, secret) = kind.generate(OsRng).unwrap();
        let created = Timestamp::from_secs(1_700_000_000);
        let inner = PubKeyInner::new(KeyVersion::V4, kind.to_alg(), created, None, public);
        let public = PublicKey::from_inner(inner.unwrap()).unwrap();
        (public.clone(), SecretKey::new(public, secret).unwrap())
    }

    #[test]
    fn signatures_are_accepted_and_refused_as_by_the_library() {
        for bits in [2048, 3072] {
            let (public, secret) = generate(bits);
            let key = RsaKey::read(&public.to_bytes().unwrap()).unwrap();
            let same = |hash, digest: &[u8], signature: &[u8]| {
                let packed = SignatureBytes::Mpis(vec![Mpi::from_slice(signature)]);
                let library = public.verify(hash, digest, &packed).is_ok();
                assert_eq!(key.verifies(hash, digest, signature), Some(library));
                library
            };
            for (hash, len) in DIGESTS {
                let digest: Vec<u8> = (1..).take(len).collect();
                let signed = secret.sign(&Password::empty(), hash, &digest).unwrap();
                let SignatureBytes::Mpis(numbers) = signed else {
                    panic!("RSA signatures are numbers");
                };
                let signature = numbers[0].as_ref().to_vec();
                assert!(same(hash, &digest, &signature), "{hash}");
                assert!(!same(hash, &vec![0; len], &signature));
                for at in (0..signature.len()).step_by(31) {
                    let mut other = signature.clone();
                    other[at] ^= 1;
                    assert!(!same(hash, &digest, &other), "{hash}, byte {at}");
                }
                assert!(!same(hash, &digest, &signature[1..]));
                assert!(!same(hash, &digest, &[&signature[..], &[0]].concat()));
            }
            let name = |hash, len: usize| key.verifies(hash, &vec![0; len], &[]);
            assert_eq!(name(HashAlgorithm::Sha512, 64), Some(false));
            assert_eq!(name(HashAlgorithm::Sha1, 20), None);
        }
    }

    #[test]
    fn a_signature_beyond_the_modulus_is_refused() {
        let (public, secret) = generate(2048);
        let body = public.to_bytes().unwrap();
        let key = RsaKey::read(&body).unwrap();
        let (modulus, _) = number(&body[6..]).unwrap();
        let modulus: U2048 = Uint::from_be_slice(modulus);
        // The same number modulo the modulus, where there is room for it: half of all signatures
        // are small enough.
        for tried in 0..64_u8 {
            let digest = [tried; 32];
            let hash = HashAlgorithm::Sha256;
            let signed = secret.sign(&Password::empty(), hash, &digest).unwrap();
            let SignatureBytes::Mpis(numbers) = signed else {
                panic!("RSA signatures are numbers");
            };
            let zeros = vec![0; 256 - numbers[0].as_ref().len()];
            let signature = [&zeros[..], numbers[0].as_ref()].concat();
            assert_eq!(key.verifies(hash, &digest, &signature), Some(true));
            let (larger, carry) = U2048::from_be_slice(&signature).adc(&modulus, 0u32.into());
            if carry == 0u32.into() {
                let larger: Vec<u8> = larger
                    .to_words()
                    .iter()
                    .rev()
                    .flat_map(|word| word.to_be_bytes())
                    .collect();
                assert_eq!(key.verifies(hash, &digest, &larger), Some(false));
                return;
            }
        }
        panic!("all signatures were large");
    }

    #[test]
    fn other_keys_are_left_to_the_library() {
        let body = generate(2048).0.to_bytes().unwrap();
        assert!(RsaKey::read(&body).is_some());
        let mut exponent = body.clone();
        *exponent.last_mut().unwrap() = 3;
        let mut even = body.clone();
        even[8 + 255] &= 0xfe;
        let mut short = body.clone();
        short.drain(8..9);
        short[6..8].copy_from_slice(&2040_u16.to_be_bytes());
        for other in [exponent, even, short, body[..200].to_vec(), Vec::new()] {
            assert!(RsaKey::read(&other).is_none());
        }
    }
}

//! Checks signatures: who may sign, who may not, and what time it is.
//!
//! In: keyrings, a blacklist, the present, a detached signature and the signed bytes, at once or
//! as a stream. Out: `Verified`, or why not. The rules for a file with several signatures:
//!
//! * A signature by a key in none of the keyrings says nothing and is passed over, as is one of a
//!   kind that we cannot attribute to a key: a second key may be known to others only.
//! * A signature by a known key that is wrong in any way refuses the file, whatever the others
//!   say: not matching, weak digest, text instead of binary, revoked or blacklisted key. A
//!   blacklisted or revoked key that is merely named refuses it too.
//! * A signature that was good and lapsed, because it or its key expired, is passed over if
//!   another one is good: files signed by the old and the new key outlive the old one.
//! * At least one must be good.

use std::io::{self, Read, Seek};

use pgp::packet::{Signature, SignatureConfig, SignatureType, SignatureVersion};
use system_image_formats::checksum::Sha256;

use crate::certificate::{Key, Standing};
use crate::certificates::Certificates;
use crate::fingerprint::Issuer;
use crate::now::Now;
use crate::signature::{self, DetachedSignature};
use crate::verified::Verified;
use crate::verifier::{Claim, Verifier};
use crate::verify_error::VerifyError;

/// Read from a stream at a time.
const BUFFER: usize = 64 << 10;

/// The keys that may sign something: all of the keyrings', but none of the blacklist's.
#[derive(Clone, Debug)]
pub struct Signers<'a> {
    keyrings: Vec<&'a Certificates>,
    blacklist: Option<&'a Certificates>,
    now: Now,
    anybody: bool,
}

impl<'a> Signers<'a> {
    /// Accepts any key of these keyrings that is not expired at `now`.
    pub fn new(keyrings: impl IntoIterator<Item = &'a Certificates>, now: Now) -> Self {
        Self {
            keyrings: keyrings.into_iter().collect(),
            blacklist: None,
            now,
            anybody: false,
        }
    }

    /// Takes whatever comes as signed, and looks at no signature: for the hidden option
    /// `--skip-gpg-verification`. Never a default.
    #[must_use]
    pub(crate) fn trust_anybody_for_testing(mut self) -> Self {
        self.anybody = true;
        self
    }

    /// Refuses the keys of `blacklist`, and those that belong to the same certificates.
    #[must_use]
    pub fn refusing(mut self, blacklist: &'a Certificates) -> Self {
        self.blacklist = Some(blacklist);
        self
    }

    /// Checks bytes that are in memory against the text of their `.asc` file.
    pub fn verify<B: AsRef<[u8]>>(
        &self,
        bytes: B,
        signature: &[u8],
    ) -> Result<Verified<B>, VerifyError> {
        let verified = self.verifier(signature)?.check(bytes.as_ref())?;
        Ok(verified.map(|()| bytes))
    }

    /// Checks a stream, read once to its end with a buffer of 64 KiB; returns the digest of
    /// exactly the bytes that were read.
    pub fn verify_reader(
        &self,
        mut data: impl Read,
        signature: &[u8],
    ) -> Result<Verified<Sha256>, VerifyError> {
        let mut verifier = self.verifier(signature)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => return verifier.finish(),
                Ok(len) => verifier.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(VerifyError::Read(error)),
            }
        }
    }

    /// Checks a file that nobody else can write to, as [`verify_reader`](Self::verify_reader) does:
    /// from its start to its end. It comes back at its start, to be parsed.
    pub fn verify_file<F: Read + Seek>(
        &self,
        mut file: F,
        signature: &[u8],
    ) -> Result<Verified<F>, VerifyError> {
        file.rewind().map_err(VerifyError::Read)?;
        let verified = self.verify_reader(&mut file, signature)?;
        file.rewind().map_err(VerifyError::Read)?;
        Ok(verified.map(|_| file))
    }

    /// Checks a file piece by piece, for instance while it is downloaded.
    ///
    /// # Errors
    /// Whatever is wrong whatever the content may be, so that nothing is fetched in vain.
    pub fn verifier(&self, signature: &[u8]) -> Result<Verifier, VerifyError> {
        if self.anybody {
            return Ok(Verifier::of_anybody());
        }
        let detached = DetachedSignature::parse(signature)?;
        let mut claims = Vec::new();
        for signature in &detached.signatures {
            claims.extend(self.claim(signature)?);
        }
        Verifier::new(claims).map_err(|lapse| {
            let issuers = detached.issuers();
            lapse.unwrap_or(VerifyError::UnknownKey { issuers })
        })
    }

    /// What one signature claims, if it is by a key that is known here.
    fn claim(&self, signature: &Signature) -> Result<Option<Claim>, VerifyError> {
        let Some(issuer) = signature::issuer(signature) else {
            return Ok(None);
        };
        if self.is_blacklisted(issuer) {
            return Err(VerifyError::Blacklisted { key: issuer });
        }
        let found: Vec<_> = self
            .keyrings
            .iter()
            .flat_map(|keyring| keyring.find(issuer))
            .collect();
        let revoked = found.iter().find(|key| key.standing == Standing::Revoked);
        // If a key is in the keyrings twice, it is the copy that says it lives longest: the other
        // has not seen its extension yet. A revocation counts in any copy.
        let best = found.iter().max_by_key(|key| {
            let signs = key.standing == Standing::Signs;
            (signs, key.expires.unwrap_or(i64::MAX))
        });
        let Some(&key) = revoked.or(best) else {
            return Ok(None);
        };
        if self.is_blacklisted(key.primary.into()) || self.is_blacklisted(key.fingerprint.into()) {
            return Err(VerifyError::Blacklisted {
                key: key.fingerprint.into(),
            });
        }
        let config = acceptable(signature, key)?;
        let signed = made_at(config, key)?;
        Ok(Some(Claim::new(signature, config, key, signed, self.now)))
    }

    fn is_blacklisted(&self, key: Issuer) -> bool {
        self.blacklist.is_some_and(|blacklist| blacklist.names(key))
    }
}

/// The signature's statement, if it and its key are of a kind that counts.
fn acceptable<'s>(signature: &'s Signature, key: &Key) -> Result<&'s SignatureConfig, VerifyError> {
    let key_named = key.fingerprint;
    match key.standing {
        Standing::Signs => {}
        Standing::Revoked => return Err(VerifyError::Revoked { key: key_named }),
        Standing::CannotSign => return Err(VerifyError::CannotSign { key: key_named }),
        Standing::Weak => return Err(VerifyError::WeakKey { key: key_named }),
    }
    let config = signature
        .config()
        .filter(|config| config.version() == SignatureVersion::V4)
        .ok_or(VerifyError::NotUnderstood { key: key_named })?;
    if config.typ != SignatureType::Binary {
        return Err(VerifyError::NotBinary { key: key_named });
    }
    if !signature::is_strong(config.hash_alg) {
        let digest = config.hash_alg.to_string();
        return Err(VerifyError::WeakDigest {
            key: key_named,
            digest,
        });
    }
    if signature::has_unknown_critical(config) {
        return Err(VerifyError::NotUnderstood { key: key_named });
    }
    Ok(config)
}

/// When the signature was made, which must be within the key's lifetime, whatever time it is now.
fn made_at(config: &SignatureConfig, key: &Key) -> Result<i64, VerifyError> {
    let signed = signature::created(config).ok_or(VerifyError::NotUnderstood {
        key: key.fingerprint,
    })?;
    if signed < key.created || key.expires.is_some_and(|end| signed >= end) {
        return Err(VerifyError::OutsideLifetime {
            key: key.fingerprint,
            signed,
        });
    }
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use pgp::crypto::hash::HashAlgorithm;
    use pgp::packet::{Notation, Subpacket, SubpacketData};
    use pgp::types::{Duration, Timestamp};
    use proptest::prelude::*;
    use rand_core::OsRng;
    use sha2::Digest as _;

    use super::*;
    use crate::SignatureFormError;
    use crate::armor;
    use crate::packet::{self, tag};
    use crate::secret_key::{KeyKind, SecretKey};

    const MADE: u32 = 1_750_000_000;
    const NOW: Now = Now::from_clock(1_760_000_000);
    const DATA: &[u8] = b"some index";

    fn key() -> SecretKey {
        key_valid_for(None)
    }

    fn key_valid_for(seconds: Option<u32>) -> SecretKey {
        let made = i64::from(MADE);
        SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "Test", made, seconds).unwrap()
    }

    fn armored(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut block = Vec::new();
        for body in packets {
            packet::write(&mut block, tag::SIGNATURE, body);
        }
        armor::write(&block, armor::SIGNATURE).into_bytes()
    }

    fn good(key: &SecretKey) -> Vec<u8> {
        key.forge(key.statement(MADE), DATA)
    }

    /// A signature over something else.
    fn bad(key: &SecretKey) -> Vec<u8> {
        key.forge(key.statement(MADE), b"another index")
    }

    fn hashed(config: &mut SignatureConfig, data: SubpacketData) {
        config
            .hashed_subpackets
            .push(Subpacket::regular(data).unwrap());
    }

    fn critical(config: &mut SignatureConfig, data: SubpacketData) {
        config
            .hashed_subpackets
            .push(Subpacket::critical(data).unwrap());
    }

    fn notation() -> SubpacketData {
        SubpacketData::Notation(Notation {
            readable: true,
            name: "test@example.org".into(),
            value: "x".into(),
        })
    }

    #[test]
    fn weak_and_unknown_digests_are_refused() {
        let key = key();
        for digest in [1, 2, 3, 0, 4, 99, 110] {
            let mut packet = good(&key);
            packet[3] = digest;
            let signers = Signers::new([key.certificate()], NOW);
            let refused = signers.verify(DATA, &armored(&[packet])).unwrap_err();
            assert!(
                matches!(refused, VerifyError::WeakDigest { .. }),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_critical_statement_of_the_future_is_refused() {
        let key = key();
        let mut config = key.statement(MADE);
        hashed(&mut config, SubpacketData::Other(99, b"x".to_vec().into()));
        let mut packet = key.forge(config, DATA);
        let kind = packet.windows(3).position(|w| w == [2, 99, b'x']).unwrap() + 1;
        packet[kind] |= 0x80;
        let refused = Signers::new([key.certificate()], NOW)
            .verify(DATA, &armored(&[packet]))
            .unwrap_err();
        assert!(
            matches!(refused, VerifyError::NotUnderstood { .. }),
            "{refused:?}"
        );
    }

    #[test]
    fn a_statement_that_is_not_plain_is_refused() {
        type Spoil = fn(&mut SignatureConfig);
        let key = key();
        let cases: [(&str, Spoil, &str); 11] = [
            ("plain", |_| {}, "good"),
            ("notation", |c| hashed(c, notation()), "good"),
            (
                "critical notation",
                |c| critical(c, notation()),
                "NotUnderstood",
            ),
            (
                "unknown",
                |c| hashed(c, SubpacketData::Other(99, b"x".to_vec().into())),
                "good",
            ),
            (
                "critical experiment",
                |c| critical(c, SubpacketData::Experimental(101, b"x".to_vec().into())),
                "NotUnderstood",
            ),
            (
                "critical key flags, which are not for data",
                |c| critical(c, SubpacketData::KeyFlags(pgp::packet::KeyFlags::default())),
                "NotUnderstood",
            ),
            ("text", |c| c.typ = SignatureType::Text, "NotBinary"),
            ("sha-256", |c| c.hash_alg = HashAlgorithm::Sha256, "good"),
            ("sha-384", |c| c.hash_alg = HashAlgorithm::Sha384, "good"),
            (
                "no time",
                |c| drop(c.hashed_subpackets.pop()),
                "NotUnderstood",
            ),
            (
                "two times",
                |c| {
                    hashed(
                        c,
                        SubpacketData::SignatureCreationTime(Timestamp::from_secs(MADE)),
                    );
                },
                "NotUnderstood",
            ),
        ];
        for (name, spoil, want) in cases {
            let mut config = key.statement(MADE);
            spoil(&mut config);
            let signature = armored(&[key.forge(config, DATA)]);
            let got = Signers::new([key.certificate()], NOW).verify(DATA, &signature);
            let got = got.map_or_else(|e| format!("{e:?}"), |_| "good".to_owned());
            assert!(got.starts_with(want), "{name}: {got}");
        }
    }

    #[test]
    fn a_signature_lapses_when_it_says_so_or_with_its_key() {
        let (lasting, lapsing) = (key(), key_valid_for(Some(1000)));
        let mut config = lasting.statement(MADE);
        hashed(
            &mut config,
            SubpacketData::SignatureExpirationTime(Duration::from_secs(500)),
        );
        let short = armored(&[lasting.forge(config, DATA)]);
        let keyed = armored(&[good(&lapsing)]);
        let made = i64::from(MADE);
        for (signature, now, want) in [
            (&short, Now::from_clock(made + 499), "good"),
            (&short, Now::from_clock(made + 500), "SignatureExpired"),
            (&short, Now::UNKNOWN, "good"),
            (&keyed, Now::from_clock(made + 999), "good"),
            (&keyed, Now::from_clock(made + 1000), "KeyExpired"),
            (&keyed, Now::from_clock(0), "good"),
            (&keyed, Now::UNKNOWN.at_least(made + 1000), "KeyExpired"),
        ] {
            let keyrings = [lasting.certificate(), lapsing.certificate()];
            let got = Signers::new(keyrings, now).verify(DATA, signature);
            let got = got.map_or_else(|e| format!("{e:?}"), |_| "good".to_owned());
            assert!(got.starts_with(want), "{now:?}: {got}");
        }
    }

    #[test]
    fn a_signature_is_made_within_the_lifetime_of_its_key_whatever_time_it_is() {
        let key = key_valid_for(Some(1000));
        for (signed, want) in [
            (MADE - 1, false),
            (MADE, true),
            (MADE + 999, true),
            (MADE + 1000, false),
        ] {
            let signature = armored(&[key.forge(key.statement(signed), DATA)]);
            let got = Signers::new([key.certificate()], Now::UNKNOWN).verify(DATA, &signature);
            match got {
                Ok(_) => assert!(want, "{signed}"),
                Err(VerifyError::OutsideLifetime { .. }) => assert!(!want, "{signed}"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_signature_ahead_of_the_clock_is_accepted() {
        let key = key();
        let signature = armored(&[key.forge(key.statement(u32::MAX - 1), DATA)]);
        assert!(
            Signers::new([key.certificate()], NOW)
                .verify(DATA, &signature)
                .is_ok()
        );
    }

    #[test]
    fn of_several_signatures_strangers_and_lapsed_ones_do_not_count_and_bad_ones_refuse() {
        let (a, b, stranger, old) = (key(), key(), key(), key_valid_for(Some(1000)));
        let keyrings = [a.certificate(), b.certificate(), old.certificate()];
        let signers = Signers::new(keyrings, NOW);
        for (signatures, want) in [
            (vec![good(&a), good(&b)], "good"),
            (vec![good(&a), good(&stranger)], "good"),
            (vec![good(&stranger), good(&a)], "good"),
            (vec![bad(&stranger), good(&a)], "good"),
            (vec![good(&old), good(&a)], "good"),
            (vec![good(&a), good(&old)], "good"),
            (vec![good(&a), bad(&b)], "Bad"),
            (vec![bad(&b), good(&a)], "Bad"),
            (vec![good(&a), bad(&a)], "Bad"),
            (vec![good(&a), bad(&old)], "Bad"),
            (vec![good(&old)], "KeyExpired"),
            (vec![good(&old), good(&stranger)], "KeyExpired"),
            (vec![good(&stranger)], "UnknownKey"),
            (vec![good(&a); 16], "good"),
            (vec![good(&a); 17], "Form(TooLong"),
        ] {
            let got = signers.verify(DATA, &armored(&signatures));
            let got = got.map_or_else(|e| format!("{e:?}"), |_| "good".to_owned());
            assert!(got.starts_with(want), "{want}: {got}");
        }
    }

    #[test]
    fn a_blacklisted_key_refuses_even_what_another_key_signed() {
        let (a, b) = (key(), key());
        let signers =
            Signers::new([a.certificate(), b.certificate()], NOW).refusing(b.certificate());
        for signatures in [
            vec![good(&b)],
            vec![good(&a), good(&b)],
            vec![bad(&b), good(&a)],
        ] {
            let refused = signers.verify(DATA, &armored(&signatures)).unwrap_err();
            assert!(
                matches!(refused, VerifyError::Blacklisted { .. }),
                "{refused:?}"
            );
        }
        assert!(signers.verify(DATA, &armored(&[good(&a)])).is_ok());

        let unknown = Signers::new([a.certificate()], NOW).refusing(b.certificate());
        let refused = unknown.verify(DATA, &armored(&[good(&b)])).unwrap_err();
        assert!(
            matches!(refused, VerifyError::Blacklisted { .. }),
            "{refused:?}"
        );
    }

    #[test]
    fn foreign_packets_and_unreadable_signatures_refuse() {
        let key = key();
        let mut block = Vec::new();
        packet::write(&mut block, tag::SIGNATURE, &good(&key));
        let signers = Signers::new([key.certificate()], NOW);
        let refusal = |block: &[u8]| {
            let text = armor::write(block, armor::SIGNATURE);
            match signers.verify(DATA, text.as_bytes()) {
                Err(VerifyError::Form(form)) => form,
                other => panic!("{other:?}"),
            }
        };
        for foreign in [
            tag::MARKER,
            tag::TRUST,
            tag::PUBLIC_KEY,
            tag::USER_ID,
            4,
            8,
            11,
            63,
        ] {
            let mut with = block.clone();
            packet::write(&mut with, foreign, b"PGP");
            assert_eq!(refusal(&with), SignatureFormError::ForeignPacket(foreign));
        }
        let mut left_over = good(&key);
        left_over.push(0);
        let mut padded = Vec::new();
        packet::write(&mut padded, tag::SIGNATURE, &left_over);
        assert_eq!(refusal(&padded), SignatureFormError::Malformed);
        assert_eq!(refusal(&[]), SignatureFormError::Empty);
        assert_eq!(
            refusal(&block[..block.len() - 1]),
            SignatureFormError::Packets(packet::PacketError::CutOff)
        );
    }

    #[test]
    fn signatures_of_other_versions_are_strangers_unless_they_name_a_key() {
        let key = key();
        // Version 3 names its issuer in the clear; version 7 is not written yet.
        let mut third = vec![3, 5, 0];
        third.extend(MADE.to_be_bytes());
        third.extend(key.fingerprint().key_id().0);
        third.extend([1, 8, 0, 0, 0, 1, 1]);
        let seventh = vec![7, 0, 0, 0];
        let signers = Signers::new([key.certificate()], NOW);

        let refused = signers
            .verify(DATA, &armored(&[third, good(&key)]))
            .unwrap_err();
        assert!(
            matches!(refused, VerifyError::NotUnderstood { .. }),
            "{refused:?}"
        );
        assert!(
            signers
                .verify(DATA, &armored(&[seventh.clone(), good(&key)]))
                .is_ok()
        );
        let refused = signers.verify(DATA, &armored(&[seventh])).unwrap_err();
        assert!(matches!(&refused, VerifyError::UnknownKey { issuers } if issuers.is_empty()));
        assert_eq!(
            refused.to_string(),
            "signed by nobody, which is not a trusted key here"
        );
    }

    #[test]
    fn a_stream_is_verified_in_one_pass_and_named_by_its_digest() {
        let key = key();
        let data = vec![7; 3 * BUFFER + 5];
        let signers = Signers::new([key.certificate()], NOW);
        for hash in [HashAlgorithm::Sha512, HashAlgorithm::Sha256] {
            let mut config = key.statement(MADE);
            config.hash_alg = hash;
            let signature = armored(&[key.forge(config, &data)]);
            let whole = signers.verify_reader(&data[..], &signature).unwrap();
            let want: [u8; 32] = sha2::Sha256::digest(&data).into();
            assert_eq!(*whole, Sha256::from(want));

            let mut verifier = signers.verifier(&signature).unwrap();
            data.chunks(1000)
                .for_each(|chunk| verifier.write_all(chunk).unwrap());
            assert_eq!(verifier.finish().unwrap(), whole);

            let cut = signers.verify_reader(&data[1..], &signature).unwrap_err();
            assert!(matches!(cut, VerifyError::Bad { .. }), "{cut:?}");
        }
    }

    #[test]
    fn a_file_is_verified_from_its_start_whatever_was_read_of_it_before() {
        let key = key();
        let data = vec![7; BUFFER + 5];
        let signers = Signers::new([key.certificate()], NOW);
        let signature = armored(&[key.forge(key.statement(MADE), &data)]);
        let mut file = io::Cursor::new(&data[..]);
        file.set_position(9);
        let verified = signers.verify_file(file, &signature).unwrap();
        assert_eq!(verified.position(), 0);
        assert_eq!(verified.signer(), Some(key.fingerprint()));
        assert_eq!(verified.by_ref().signer(), verified.signer());

        let longer = [&data[..], b"x"].concat();
        let refused = signers.verify_file(io::Cursor::new(longer), &signature);
        let refused = refused.unwrap_err();
        assert!(matches!(refused, VerifyError::Bad { .. }), "{refused:?}");
    }

    #[test]
    fn a_stream_that_fails_is_not_verified() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let key = key();
        let signature = armored(&[key.forge(key.statement(MADE), b"")]);
        let refused = Signers::new([key.certificate()], NOW)
            .verify_reader(Broken, &signature)
            .unwrap_err();
        assert!(matches!(refused, VerifyError::Read(_)), "{refused:?}");
    }

    proptest! {
        #[test]
        fn no_change_of_data_or_statement_is_accepted(
            at in any::<prop::sample::Index>(), bit in 0u8..8, in_data in any::<bool>()
        ) {
            let key = key();
            let mut data = DATA.to_vec();
            let mut packet = good(&key);
            // After the statement come the unhashed area, which is nobody's, and numbers, whose
            // lengths can be written in more ways than one.
            let statement = 6 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            if in_data {
                *at.get_mut(&mut data) ^= 1 << bit;
            } else {
                packet[at.index(statement)] ^= 1 << bit;
            }
            let got = Signers::new([key.certificate()], NOW).verify(&data, &armored(&[packet]));
            prop_assert!(got.is_err());
        }

        #[test]
        fn no_signature_packet_panics(
            mut packet in proptest::collection::vec(any::<u8>(), 0..200),
            version in prop::sample::select(vec![2u8, 3, 4, 5, 6, 7]),
            typ in 0u8..32, algorithm in prop::sample::select(vec![1u8, 17, 19, 22, 25, 27, 28, 100]),
        ) {
            for (place, byte) in packet.iter_mut().zip([version, typ, algorithm, 10, 0]) {
                *place = byte;
            }
            let key = key();
            let _ = Signers::new([key.certificate()], NOW).verify(DATA, &armored(&[packet]));
        }
    }
}

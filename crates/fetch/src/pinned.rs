//! Certificates that are trusted by themselves, as an administrator names them.
//!
//! A server that shows exactly one of them is forgiven that nobody signed it whom the system
//! trusts, and nothing else: time and host name must be right.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerified;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The certificates, in DER.
#[derive(Debug)]
pub(crate) struct Pinned(Vec<CertificateDer<'static>>);

impl Pinned {
    pub(crate) fn new(certificates: &[CertificateDer<'static>]) -> Self {
        Self(certificates.to_vec())
    }

    pub(crate) fn contains(&self, shown: &CertificateDer<'_>) -> bool {
        self.0.iter().any(|known| known.as_ref() == shown.as_ref())
    }

    /// Checks one of them that a server shows: everything but its issuer.
    pub(crate) fn verify(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<ServerCertVerified, Error> {
        let anchors: Vec<_> = self
            .0
            .iter()
            .filter_map(|known| anchor_from_trusted_cert(known).ok())
            .collect();
        let cert = EndEntityCert::try_from(shown).map_err(told)?;
        let algorithms = provider.signature_verification_algorithms.all;
        let path = cert.verify_for_usage(
            algorithms,
            &anchors,
            &[],
            now,
            KeyUsage::server_auth(),
            None,
            None,
        );
        match path {
            // The last is what `openssl req -x509` makes: it signs itself as an authority. Its time
            // has been looked at before that was noticed.
            Ok(_) | Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity) => {}
            Err(error) => return Err(told(error)),
        }
        match cert.verify_is_valid_for_subject_name(name) {
            Err(webpki::Error::CertNotValidForName(context))
                if context.presented.is_empty() && has_common_name(cert.subject(), name) => {}
            checked => checked.map_err(told)?,
        }
        Ok(ServerCertVerified::assertion())
    }
}

fn told(error: webpki::Error) -> Error {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::InvalidCertValidity => {
            CertificateError::Expired.into()
        }
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet.into(),
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName.into(),
        other => CertificateError::Other(OtherError(Arc::new(other))).into(),
    }
}

/// Whether a subject, in DER, has the common name of a server. That is how certificates were made by
/// hand in the original's days, and such a one has no other name.
fn has_common_name(subject: &[u8], name: &ServerName<'_>) -> bool {
    /// The object identifier 2.5.4.3.
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    /// UTF-8, printable and IA5 strings.
    const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];
    let wanted = name.to_str();
    let mut places = subject.windows(COMMON_NAME.len()).enumerate();
    places.any(|(at, window)| {
        let rest = &subject[at + COMMON_NAME.len()..];
        let [tag, len, value @ ..] = rest else {
            return false;
        };
        let value = value.get(..usize::from(*len)).unwrap_or_default();
        window == COMMON_NAME
            && STRINGS.contains(tag)
            && value.eq_ignore_ascii_case(wanted.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_is_compared_whole() {
        let subject =
            b"\x31\x0f\x30\x0d\x06\x03\x55\x04\x03\x0c\x06host.x\x06\x03\x55\x04\x03\x0c\x7f";
        for (name, want) in [
            ("host.x", true),
            ("HOST.x", true),
            ("host", false),
            ("st.x", false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            assert_eq!(has_common_name(subject, &name), want, "{name:?}");
        }
        let name = ServerName::try_from("host.x").unwrap();
        assert!(!has_common_name(b"", &name));
        assert!(!has_common_name(b"\x06\x03\x55\x04\x03", &name));
    }
}

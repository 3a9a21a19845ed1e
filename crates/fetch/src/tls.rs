//! TLS with the system's roots, which are read when a server first shows a certificate, and with
//! certificates that are trusted by themselves.
//!
//! Reading and parsing some hundred certificates costs more than a whole check for updates over
//! plain HTTP, so whoever meets no HTTPS does not pay for it. A system without any roots can still
//! use plain HTTP: what is fetched is trusted for its signature, not for its transport.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::error::FetchError;
use crate::pinned::Pinned;

pub(crate) fn config(self_signed: &[CertificateDer<'static>]) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        provider: Arc::clone(&provider),
        roots: OnceLock::new(),
        pinned: Pinned::new(self_signed),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Setup(error.into()))?
        .dangerous()
        // Not dangerous: it is the usual verifier, made later.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: OnceLock<Result<Arc<WebPkiServerVerifier>, String>>,
    pinned: Pinned,
}

impl Verifier {
    fn roots(&self) -> Result<&WebPkiServerVerifier, Error> {
        let loaded = self.roots.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| format!("the system's trusted certificates: {error}"))
        });
        match loaded {
            Ok(verifier) => Ok(verifier),
            Err(why) => Err(Error::General(why.clone())),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.contains(end_entity) {
            return self
                .pinned
                .verify(end_entity, server_name, now, &self.provider);
        }
        let verifier = self.roots()?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

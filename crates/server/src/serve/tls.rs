//! The certificate and its key, read again when their files change.
//!
//! Whoever renews a certificate replaces two files, one after the other; a pair that does not fit
//! together, or cannot be read, leaves the one before in use.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use camino::{Utf8Path, Utf8PathBuf};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Two files in PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The server's certificate, then those that lead to the root.
    pub certificate: Utf8PathBuf,
    /// Its private key.
    pub key: Utf8PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM of its kind.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate in `{path}`")]
    Empty {
        /// The file.
        path: Utf8PathBuf,
    },
    /// The key is of no known kind, or it is not the certificate's.
    #[error("the certificate `{certificate}` cannot be used with the key `{key}`")]
    Pair {
        /// The certificate's file.
        certificate: Utf8PathBuf,
        /// The key's file.
        key: Utf8PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl CertificateError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "it has to be PEM, and readable by this user",
            Self::Empty { .. } => "it has to hold `-----BEGIN CERTIFICATE-----`",
            Self::Pair { .. } => "give the key that the certificate was made for",
        }
    }
}

/// The pair in use.
#[derive(Debug)]
pub(super) struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    /// How the files looked when they were read last.
    seen: Mutex<Seen>,
}

/// Inode, length and time of change of both files; `None` of what is not there.
type Seen = [Option<[i64; 4]>; 2];

impl Certificate {
    pub(super) fn load(files: CertificateFiles) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Before reading: a change in between is then seen as one.
        let seen = look(&files);
        let current = read(&files, &provider)?;
        Ok(Arc::new(Self {
            files,
            provider,
            current: RwLock::new(current),
            seen: Mutex::new(seen),
        }))
    }

    /// What the server tells its clients; HTTP/2 is offered.
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the files again if they have changed. `None` if they have not; after an error the
    /// pair before stays in use, and the error is not told again until the files change again.
    pub(super) fn refresh(&self) -> Option<Result<(), CertificateError>> {
        let found = look(&self.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == found {
                return None;
            }
            *seen = found;
        }
        Some(read(&self.files, &self.provider).map(|pair| {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = pair;
        }))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn look(files: &CertificateFiles) -> Seen {
    let look = |path: &Utf8Path| -> io::Result<[i64; 4]> {
        let found = path.metadata()?;
        Ok([
            found.ino().cast_signed(),
            found.size().cast_signed(),
            found.ctime(),
            found.ctime_nsec(),
        ])
    };
    [&files.certificate, &files.key].map(|path| look(path).ok())
}

fn read(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let unreadable = |path: &Utf8Path| {
        let path = path.to_owned();
        |source| CertificateError::Read { path, source }
    };
    let CertificateFiles { certificate, key } = files;
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty {
            path: certificate.clone(),
        });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let pair = CertifiedKey::from_der(chain, secret, provider).map_err(|source| {
        CertificateError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        }
    })?;
    Ok(Arc::new(pair))
}

//! Certificates in files.

use std::io;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// Reads all certificates of a PEM file, of which there must be one at least.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).map_err(invalid)?;
    let all: Result<Vec<_>, _> = read.collect();
    match all.map_err(invalid)? {
        all if all.is_empty() => Err(invalid(pem::Error::NoItemsFound)),
        all => Ok(all),
    }
}

fn invalid(error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

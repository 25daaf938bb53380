//! PEM files: certificates, and the key of one.

use std::{io, path::Path};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{File, failed};
use crate::error::{Error, ErrorKind, Result};

/// What is in a PEM file, without the byte order marks that some editors put before its blocks.
///
/// # Errors
/// What the system says.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = std::fs::read(path)?;
    let marked = [BYTE_ORDER_MARK, BEGIN].concat();
    while let Some(at) = find(&text, &marked) {
        text.drain(at..at + BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

/// The certificates of a file; at least one.
///
/// # Errors
/// `Config`, naming the variable and the path.
pub(crate) fn certificates(file: File<'_>) -> Result<Vec<CertificateDer<'static>>> {
    let unread = || failed(file, "cannot read certificates");
    let text = read(file.1).map_err(|e| unread().with_source(e))?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| unread().with_source(e))?;
    match certificates.is_empty() {
        true => Err(failed(file, "there is no certificate")),
        false => Ok(certificates),
    }
}

/// The private key of a file, which must not be encrypted: nobody is there to type a password.
///
/// # Errors
/// `Config`, naming the variable and the path.
pub(crate) fn private_key(file: File<'_>) -> Result<PrivateKeyDer<'static>> {
    let unread = || failed(file, "cannot read a private key");
    let text = read(file.1).map_err(|e| unread().with_source(e))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| match is_encrypted(&text) {
        true => {
            let (variable, path) = (file.0, file.1.display().to_string());
            let text = format!(
                "{variable}: the private key in {path:?} is encrypted; give it without a password, as openssl pkey writes it"
            );
            Error::new(ErrorKind::Config, text)
        }
        false => unread().with_source(e),
    })
}

/// By PKCS#8, or as OpenSSL did before (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
        b"Proc-Type: 4,ENCRYPTED",
    ];
    marks.iter().any(|mark| find(text, mark).is_some())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const BEGIN: &[u8] = b"-----BEGIN ";

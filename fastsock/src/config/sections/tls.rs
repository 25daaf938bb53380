//! TLS for devices.

use std::path::PathBuf;

use super::super::{ClientAuth, cipher, section::section};

section! {
    /// TLS for devices.
    Tls = tls, "TLS for devices";
    /// PEM files of certificates, each with its chain. They turn the device port into `wss` (TLS 1.2 and 1.3). The gateway shows the certificate that has the name a device asks for (SNI), else the first. `reload` reads the files again.
    tls_cert => cert: Vec<PathBuf> = Vec::new(), "FASTSOCK_TLS_CERT", "paths of PEM files, separated by commas", "/etc/fastsock/gateway.pem";
    /// PEM files of the keys, in the same order as the certificates. `reload` reads the files again.
    tls_key => key: Vec<PathBuf> = Vec::new(), "FASTSOCK_TLS_KEY", "paths of PEM files, separated by commas", "/etc/fastsock/gateway.key";
    /// Whether the gateway asks devices for a certificate. `off`: it does not. `optional`: a device may show one, which must be valid. `required`: a device must show one. The name in it (common name, else the first DNS name, URI or e-mail address) is a credential, and the client id with `FASTSOCK_AUTH=certificate`.
    tls_client_auth => client_auth: ClientAuth = ClientAuth::Off, "FASTSOCK_TLS_CLIENT_AUTH", "off, optional or required", "required";
    /// PEM file of the authorities that sign the certificates of devices. `reload` reads the file again.
    tls_client_ca => client_ca: Option<PathBuf> = None, "FASTSOCK_TLS_CLIENT_CA", "the path of a PEM file", "/etc/fastsock/devices-ca.pem";
    /// Cipher suites that devices may choose from, by their IANA names. Empty: all that rustls has, which are those of TLS 1.3 and, of TLS 1.2, ECDHE with AES-GCM or ChaCha20-Poly1305. A list without any suite of TLS 1.3 turns TLS 1.3 off. rustls has no RSA key exchange and no CBC: a device that needs them needs a TLS proxy in front of the gateway.
    tls_ciphers => ciphers: Vec<String> = Vec::new(), "FASTSOCK_TLS_CIPHERS", "IANA names of cipher suites, separated by commas", "TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", |list| cipher::check(list);
}

//! The settings that every HTTP client of the gateway is made with.

use std::{path::Path, time::Duration};

use crate::config::{Config, Http2, Secret};

/// How the gateway reaches an HTTP server: the settings that all endpoints share.
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "only TLS has certificates and offers HTTP/2")
)]
#[derive(Clone, Copy)]
pub(crate) struct ClientSettings<'a> {
    /// Certificates to trust beside the system's, each with the setting that names the file.
    pub(super) authorities: [(&'static str, Option<&'a Path>); 2],
    /// The client certificate and its key.
    pub(super) identity: [(&'static str, Option<&'a Path>); 2],
    pub(super) offers_http2: bool,
    pub(super) connect_timeout: Duration,
    pub(super) connection_age: Duration,
    pub(super) http_proxy: Option<&'a Secret>,
    pub(super) https_proxy: Option<&'a Secret>,
    pub(super) no_proxy: &'a [String],
}

impl<'a> From<&'a Config> for ClientSettings<'a> {
    fn from(config: &'a Config) -> Self {
        Self {
            authorities: [
                ("FASTSOCK_REMOTE_CA", config.remote.ca.as_deref()),
                (
                    "NODE_EXTRA_CA_CERTS",
                    config.remote.extra_ca_certs.as_deref(),
                ),
            ],
            identity: [
                ("FASTSOCK_REMOTE_CERT", config.remote.cert.as_deref()),
                ("FASTSOCK_REMOTE_KEY", config.remote.key.as_deref()),
            ],
            offers_http2: config.remote.http2 == Http2::Auto,
            connect_timeout: config.remote.connect_timeout,
            connection_age: config.remote.connection_age,
            http_proxy: config.remote.http_proxy.as_ref(),
            https_proxy: config.remote.https_proxy.as_ref(),
            no_proxy: &config.remote.no_proxy,
        }
    }
}

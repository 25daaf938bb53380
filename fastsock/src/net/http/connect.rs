//! Ways to a host: direct or through a proxy, plain or over TLS.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::{error::Error as StdError, time::Duration};

use http::{HeaderValue, Uri};
use hyper_util::client::{
    legacy::connect::Connection,
    proxy::matcher::{Intercept, Matcher},
};
use tokio::time::timeout;
use tower_service::Service;
use url::Url;

use super::{settings::ClientSettings, tcp::Tcp};
#[cfg(feature = "tls")]
use crate::net::tls::{Identity, client_config};
use crate::{
    config::Secret,
    error::{Error, ErrorKind, Result},
};

/// Opens connections: to the host or to its proxy, with TLS where it is asked for.
pub(super) struct Connector {
    /// To a proxy: never HTTP/2.
    link: Link,
    /// To the host itself.
    #[cfg(feature = "tls")]
    direct: Link,
    #[cfg(feature = "tls")]
    tls: Arc<rustls::ClientConfig>,
    proxies: Proxies,
    timeout: Duration,
    /// Whether a host is asked for HTTP/2 when it is reached over TLS.
    #[cfg(feature = "tls")]
    offers_http2: bool,
}

/// A new connection.
pub(super) struct Opened {
    pub(super) io: BoxIo,
    /// A proxy reads what is sent over it.
    pub(super) is_proxied: bool,
    /// Both sides chose HTTP/2.
    #[cfg(feature = "tls")]
    pub(super) is_http2: bool,
}

/// Reaches a host without a proxy in between.
#[cfg(feature = "tls")]
type Link = hyper_rustls::HttpsConnector<Tcp>;
#[cfg(not(feature = "tls"))]
type Link = Tcp;

impl Connector {
    #[cfg(feature = "tls")]
    pub(super) fn new(settings: ClientSettings<'_>, url: Option<&Url>) -> Result<Self> {
        let files = settings.authorities.into_iter();
        let files = files.filter_map(|(variable, path)| Some((variable, path?)));
        let [certificate, key] = settings.identity;
        let identity = Identity::new(certificate, key)?;
        // A proxy learns nothing of who we are.
        let plain = client_config(files.clone(), None)?;
        let mut tls = match identity {
            None => plain.clone(),
            Some(_) => client_config(files, identity)?,
        };
        let offers_http2 = settings.offers_http2;
        if offers_http2 {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let tls = Arc::new(tls);
        Ok(Self {
            link: (Tcp, plain).into(),
            direct: (Tcp, tls.clone()).into(),
            tls,
            proxies: Proxies::new(settings, url)?,
            timeout: settings.connect_timeout,
            offers_http2,
        })
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn new(settings: ClientSettings<'_>, url: Option<&Url>) -> Result<Self> {
        Ok(Self {
            link: Tcp,
            proxies: Proxies::new(settings, url)?,
            timeout: settings.connect_timeout,
        })
    }

    /// Connects, TLS and a proxy's tunnel included.
    pub(super) async fn connect(&self, to: &Uri) -> Result<Opened, BoxError> {
        let opened = timeout(self.timeout, self.open(to.clone())).await;
        opened.map_err(|_| "no connection in time")?
    }

    /// Whether a connection to there may turn out to speak HTTP/2.
    #[cfg(feature = "tls")]
    pub(super) fn may_be_http2(&self, to: &Uri) -> bool {
        self.offers_http2 && to.scheme_str() == Some("https")
    }

    /// What the proxy that reads a request to there wants to see; one that only tunnels it has seen it already.
    pub(super) fn proxy_authorization(&self, to: &Uri) -> Option<HeaderValue> {
        match self.proxies.route(to) {
            Some(proxy) if to.scheme_str() == Some("http") => proxy.basic_auth().cloned(),
            _ => None,
        }
    }

    async fn open(&self, to: Uri) -> Result<Opened, BoxError> {
        match self.proxies.route(&to) {
            #[cfg(feature = "tls")]
            None => Ok(opened(self.direct.clone().call(to).await?)),
            #[cfg(not(feature = "tls"))]
            None => Ok(opened(self.link.clone().call(to).await?)),
            Some(proxy) if to.scheme_str() == Some("https") => self.tunnel(to, &proxy).await,
            Some(proxy) => Ok(Opened {
                is_proxied: true,
                ..opened(self.link.clone().call(proxy.uri().clone()).await?)
            }),
        }
    }

    #[cfg(feature = "tls")]
    async fn tunnel(&self, to: Uri, proxy: &Intercept) -> Result<Opened, BoxError> {
        let mut tunnel = hyper_util::client::legacy::connect::proxy::Tunnel::new(
            proxy.uri().clone(),
            self.link.clone(),
        );
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let mut tls = hyper_rustls::HttpsConnector::from((tunnel, self.tls.clone()));
        Ok(opened(tls.call(to).await?))
    }

    #[cfg(not(feature = "tls"))]
    async fn tunnel(&self, _: Uri, _: &Intercept) -> Result<Opened, BoxError> {
        Err("this build has no TLS".into())
    }
}

fn opened(io: impl Io + Connection + 'static) -> Opened {
    Opened {
        is_proxied: false,
        #[cfg(feature = "tls")]
        is_http2: io.connected().is_negotiated_h2(),
        io: Box::new(io),
    }
}

/// The proxy through which a URL is reached, or `None` for the direct way.
///
/// # Errors
/// `Config` for a proxy that the URL needs and that is none.
pub(crate) fn proxy_of(settings: ClientSettings<'_>, url: &str) -> Result<Option<Uri>> {
    let Ok(uri) = url.parse() else {
        return Ok(None);
    };
    let proxy = Proxies::new(settings, Url::parse(url).ok().as_ref())?.route(&uri);
    Ok(proxy.map(|proxy| proxy.uri().clone()))
}

/// Which proxy leads to which host.
struct Proxies {
    matcher: Matcher,
    /// `NO_PROXY` entries with a port, which the matcher does not know.
    exceptions: Vec<(String, u16)>,
}

impl Proxies {
    /// Fails for a proxy that `url` needs and that is none; a bad one that it does not need is only warned of, since the
    /// variables are everyone's.
    fn new(settings: ClientSettings<'_>, url: Option<&Url>) -> Result<Self> {
        let (exceptions, no_proxy) = exceptions(settings.no_proxy);
        let with = |http: &str, https: &str| Self {
            matcher: Matcher::builder()
                .http(http)
                .https(https)
                .no(&no_proxy)
                .build(),
            exceptions: exceptions.clone(),
        };
        let uri = url.and_then(|url| url.as_str().parse().ok());
        let is_needed = |uri: &Uri| with("http://any", "http://any").route(uri).is_some();
        let uri: Option<Uri> = uri.filter(is_needed);
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let http = usable("HTTP_PROXY", settings.http_proxy, scheme == Some("http"))?;
        let https = usable("HTTPS_PROXY", settings.https_proxy, scheme == Some("https"))?;
        Ok(with(http, https))
    }

    /// The proxy for a URI, or `None` for the direct way.
    fn route(&self, uri: &Uri) -> Option<Intercept> {
        let is_exception = |(host, port): &(String, u16)| {
            uri.host() == Some(host.as_str()) && port_of(uri) == Some(*port)
        };
        if self.exceptions.iter().any(is_exception) {
            return None;
        }
        self.matcher.intercept(uri)
    }
}

/// `NO_PROXY` in two parts: entries with a port, and the rest as the matcher reads it.
fn exceptions(no_proxy: &[String]) -> (Vec<(String, u16)>, String) {
    let mut with_port = Vec::new();
    let mut rest = Vec::new();
    for entry in no_proxy.iter().flat_map(|part| part.split_whitespace()) {
        let (host, port) = entry.rsplit_once(':').unwrap_or((entry, ""));
        match port.parse() {
            // `::1` is an address, `[::1]:80` and `host:80` have a port.
            Ok(port) if !host.contains(':') || host.ends_with(']') => {
                with_port.push((host.to_ascii_lowercase(), port));
            }
            // To the matcher `*` is every name but no address, and `*.example.com` is `.example.com`.
            _ => rest.push(match entry.strip_prefix('*') {
                Some("") => "*,0.0.0.0/0,::/0",
                Some(domain) if domain.starts_with('.') => domain,
                _ => entry,
            }),
        }
    }
    (with_port, rest.join(","))
}

/// The URL of a proxy we can use, or nothing.
fn usable<'a>(variable: &str, proxy: Option<&'a Secret>, is_needed: bool) -> Result<&'a str> {
    let Some(proxy) = proxy else { return Ok("") };
    let any = Uri::from_static("http://any");
    let found = Matcher::builder()
        .http(proxy.expose())
        .build()
        .intercept(&any);
    match found.as_ref().and_then(|proxy| proxy.uri().scheme_str()) {
        Some("http") => return Ok(proxy.expose()),
        Some("https") if cfg!(feature = "tls") => return Ok(proxy.expose()),
        _ => {}
    }
    let text = format!("{variable}: the value is not the URL of an http:// or https:// proxy");
    if is_needed {
        return Err(Error::new(ErrorKind::Config, text));
    }
    tracing::warn!(variable, "proxy is not used: its URL is not understood");
    Ok("")
}

fn port_of(uri: &Uri) -> Option<u16> {
    let own = match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    uri.port_u16().or(own)
}

/// A byte stream of any kind: TCP, TLS, TLS through a proxy's tunnel.
pub(super) trait Io: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> Io for T {}

pub(super) type BoxIo = Box<dyn Io>;
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn proxied(no_proxy: &str) -> Config {
        let no_proxy: Vec<String> = no_proxy.split(',').map(str::to_owned).collect();
        Config::default()
            .http_proxy(Some(Secret::new("http://plain:3128")))
            .https_proxy(Some(Secret::new("secure:3129")))
            .no_proxy(no_proxy)
    }

    #[test]
    fn a_proxy_is_chosen_by_scheme_and_no_proxy() {
        for (no_proxy, uri, proxy) in [
            ("", "http://a/", Some("plain")),
            ("", "https://a/", Some("secure")),
            ("*", "http://a/", None),
            ("*", "http://192.0.2.1/", None),
            ("*", "http://[2001:db8::1]/", None),
            ("example.com", "http://example.com/", None),
            ("example.com", "http://sub.example.com/", None),
            ("example.com", "http://notexample.com/", Some("plain")),
            (".example.com", "http://sub.example.com/", None),
            ("*.example.com", "http://sub.example.com/", None),
            ("a:8080", "http://a:8080/", None),
            ("a:8080", "http://a/", Some("plain")),
            ("a:80 b", "http://a/", None),
            ("a:80 b", "http://b/", None),
            ("10.0.0.0/8", "http://10.1.2.3/", None),
            ("::1", "http://[::1]:9/", None),
            ("[::1]:9", "http://[::1]:9/", None),
            ("[::1]:9", "http://[::1]:8/", Some("plain")),
        ] {
            let config = proxied(no_proxy);
            let proxies = Proxies::new((&config).into(), None).unwrap();
            let found = proxies.route(&uri.parse().unwrap());
            let host = found.as_ref().and_then(|proxy| proxy.uri().host());
            assert_eq!(host, proxy, "{no_proxy} {uri}");
        }
    }

    #[test]
    fn a_bad_proxy_is_an_error_only_where_it_is_needed() {
        let start = |proxy: &str, url: &str| {
            let config = Config::default()
                .http_proxy(Some(Secret::new(proxy)))
                .no_proxy(vec!["localhost".to_owned()]);
            Proxies::new((&config).into(), Some(&url.parse().unwrap()))
        };
        for bad in ["socks5://user:pass@p:1080", "http://", "ftp://p"] {
            let error = start(bad, "http://a/").err().unwrap();
            let line = "HTTP_PROXY: the value is not the URL of an http:// or https:// proxy";
            assert_eq!(error.to_string(), line);
            start(bad, "https://a/").unwrap();
            start(bad, "http://localhost/").unwrap();
        }
        start("http://p:3128", "http://a/").unwrap();
    }
}

//! The HTTP client: kept connections, proxies, redirects.

mod answer;
pub(crate) mod connect;
pub(crate) mod endpoint;
mod exchange;
mod http1;
#[cfg(feature = "tls")]
mod http2;
mod pool;
pub(crate) mod request;
pub(crate) mod settings;
mod tcp;

use std::{error::Error as StdError, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_ENCODING, HOST, LOCATION, PROXY_AUTHORIZATION},
    uri::PathAndQuery,
};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use url::Url;

use self::{
    connect::{BoxError, Connector},
    exchange::{Failure, Wanted},
    pool::{Origin, Pool},
    request::{Fields, Redirected, Request},
    settings::ClientSettings,
};
use crate::{error::Result, tasks::Tasks};

/// POSTs to backends over kept connections. Cheap to clone.
///
/// Its connections are closed once the group of tasks it was made with stops; every request fails from then on.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Arc<Pool>,
}

/// Where a request goes: an `http` or `https` URL, taken apart once.
#[derive(Clone)]
pub(crate) struct Target {
    url: Url,
    /// The URL as a proxy and HTTP/2 want to see it.
    pub(crate) uri: Uri,
    /// Its path and query, as HTTP/1.1 sends it.
    path: PathAndQuery,
    host: HeaderValue,
    /// For the proxy that sees this request in the clear; a tunnel shows its own.
    proxy_authorization: Option<HeaderValue>,
    origin: Arc<Origin>,
}

/// What a request came to once redirects were followed: 307 and 308 are left only where they cannot be followed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body, as far as it was wanted: `None` when it was longer than that or broke off.
    pub(crate) body: Option<Bytes>,
}

/// Whether headers that are meant for the first target alone may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    Send,
    /// A redirect led to another host or port, or from https to http.
    Drop,
}

impl Client {
    /// A client with the proxies, certificates and time-outs of the settings, and no connection yet.
    ///
    /// # Errors
    /// `Config`, naming the variable: a certificate file that cannot be used, or the proxy that `url` needs.
    pub(crate) fn new(
        settings: ClientSettings<'_>,
        url: Option<&Url>,
        tasks: Tasks,
    ) -> Result<Self> {
        let pool = Pool::new(
            settings.connection_age,
            Connector::new(settings, url)?,
            tasks,
        );
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Prepares a URL; `None` when this client cannot reach its like. User, password and fragment are left out.
    pub(crate) fn target(&self, url: &Url) -> Option<Target> {
        let is_known = url.scheme() == "http" || (url.scheme() == "https" && cfg!(feature = "tls"));
        if !is_known || !url.has_host() {
            return None;
        }
        let mut url = url.clone();
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        url.set_fragment(None);
        let uri: Uri = url.as_str().parse().ok()?;
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        Some(Target {
            host: HeaderValue::from_str(host).ok()?,
            proxy_authorization: self.pool.connector.proxy_authorization(&uri),
            path: uri.path_and_query()?.clone(),
            origin: self.pool.origin(&url[..url::Position::AfterPort], &uri),
            uri,
            url,
        })
    }

    /// POSTs and waits for the answer; follows 307 and 308, with the same method and body, up to five times.
    /// The body of a 200 is read if it is at most `wanted` bytes; of others as much as keeps the connection.
    ///
    /// # Errors
    /// One line with all causes and without secrets: no connection, no answer by `deadline`, a broken answer.
    pub(crate) async fn post(
        &self,
        target: &Target,
        fields: impl Fields,
        body: Bytes,
        wanted: usize,
        deadline: Instant,
    ) -> Result<Answer, String> {
        let mut redirected: Option<Target> = None;
        let mut secrets = Secrets::Send;
        let mut hops = 0;
        loop {
            let to = redirected.as_ref().unwrap_or(target);
            let elsewhere = Redirected {
                fields: &fields,
                secrets,
                host: &to.host,
            };
            let request = Request {
                method: &Method::POST,
                to,
                fields: if hops == 0 { &fields } else { &elsewhere },
                body: &body,
            };
            let answer = pin!(self.send(&request, Wanted::OfOk(wanted), deadline)).await;
            let answer = answer.map_err(|error| to.failure(&one_line(&*error)))?;
            match self.redirection(to, &answer) {
                Some(next) if hops < MOST_REDIRECTS => {
                    hops += 1;
                    if !to.is_as_trusted(&next) {
                        secrets = Secrets::Drop;
                    }
                    redirected = Some(next);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Makes one request and reads the answer: the status, and of a 2xx the whole body, of at most 256 KiB, as it is. Follows no
    /// redirect: what is asked here is not for anyone else.
    ///
    /// # Errors
    /// As [`Client::post`]; also a 2xx whose body is too long, breaks off or has a content coding.
    pub(crate) async fn ask(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(StatusCode, Bytes), String> {
        let fields = |_| headers.clone();
        let request = Request {
            method: &method,
            to: target,
            fields: &fields,
            body: &body,
        };
        let wanted = Wanted::OfAny(LONGEST_ANSWER_BYTES);
        let cause = match self.send(&request, wanted, deadline).await {
            Ok(answer) if !answer.status.is_success() => {
                return Ok((answer.status, Bytes::new()));
            }
            Ok(answer) => match answer.whole_body() {
                Ok(body) => return Ok((answer.status, body)),
                Err(cause) => format!("the answer {cause}"),
            },
            Err(error) => one_line(&*error),
        };
        Err(target.failure(&cause))
    }

    /// Sends one request. When a kept connection dies before a byte of the answer came, the backend had closed it, and the
    /// request goes over a new one, once. So does one that the backend has not begun to process, whatever its connection.
    async fn send(
        &self,
        request: &Request<'_>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, BoxError> {
        let origin = &request.to.origin;
        let mut may_repeat = true;
        let mut unbegun = 0;
        let (mut connection, mut is_kept) = self.pool.connection(origin, deadline).await?;
        loop {
            let mut answer = pin!(connection.exchange(request, wanted, deadline)).await;
            if is_kept && connection.is_farewell(&answer) {
                answer = Err(Failure::Unheard("408 Request Timeout".into()));
            }
            (connection, is_kept) = match answer {
                Ok(answer) => {
                    self.pool.keep(origin, connection);
                    return Ok(answer);
                }
                Err(Failure::Unbegun(_)) if unbegun < MOST_UNBEGUN => {
                    unbegun += 1;
                    self.pool.fresh(origin, connection, deadline).await?
                }
                #[cfg(feature = "tls")]
                Err(Failure::Refused(_)) if unbegun < MOST_UNBEGUN => {
                    unbegun += 1;
                    self.pool.connection(origin, deadline).await?
                }
                Err(Failure::Unheard(_)) if is_kept && may_repeat => {
                    may_repeat = false;
                    self.pool.fresh(origin, connection, deadline).await?
                }
                Err(failure) => return Err(failure.into()),
            };
        }
    }

    /// Where an answer asks to repeat the request.
    pub(crate) fn redirection(&self, from: &Target, answer: &Answer) -> Option<Target> {
        if !matches!(answer.status.as_u16(), 307 | 308) {
            return None;
        }
        let location = answer.headers.get(LOCATION)?.as_bytes();
        let location = std::str::from_utf8(location).ok()?;
        self.target(&from.url.join(location).ok()?)
    }
}

impl Answer {
    /// The body, as it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn whole_body(&self) -> Result<Bytes, String> {
        let body = self.body.clone();
        let body = body.ok_or("is too long, broke off, or has a head that cannot be read")?;
        match codings(&self.headers) {
            Some(codings) if !body.is_empty() => Err(format!("has a content coding ({codings})")),
            _ => Ok(body),
        }
    }
}

impl Target {
    /// The same with another path, which is percent-encoded already.
    pub(crate) fn at(&self, path: &str) -> Option<Self> {
        let mut url = self.url.clone();
        url.set_path(path);
        let uri: Uri = url.as_str().parse().ok()?;
        Some(Self {
            path: uri.path_and_query()?.clone(),
            uri,
            url,
            ..self.clone()
        })
    }

    /// The `Host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Headers for it with those that HTTP/1.1 needs.
    pub(crate) fn completed(&self, mut headers: HeaderMap) -> HeaderMap {
        let host = headers.entry(HOST);
        host.or_insert_with(|| self.host.clone());
        if let Some(value) = &self.proxy_authorization {
            let entry = headers.entry(PROXY_AUTHORIZATION);
            entry.or_insert_with(|| value.clone());
        }
        headers
    }

    /// Its URI for HTTP/2, with what the settings make of the host.
    #[cfg(feature = "tls")]
    fn with_authority(&self, host: Option<HeaderValue>) -> Uri {
        let Some(host) = host.filter(|host| *host != self.host) else {
            return self.uri.clone();
        };
        let mut parts = self.uri.clone().into_parts();
        if let Ok(authority) = host.as_bytes().try_into() {
            parts.authority = Some(authority);
        }
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }

    /// Whether what may be known here may be known there too.
    pub(crate) fn is_as_trusted(&self, next: &Self) -> bool {
        let is_downgrade = self.url.scheme() == "https" && next.url.scheme() == "http";
        // `port` is `None` where it is the scheme's own: http to https on one host stays at home.
        let (here, there) = (&self.url, &next.url);
        !is_downgrade && (here.host(), here.port()) == (there.host(), there.port())
    }

    /// The line for the log. Path and query may hold a token, so they stay out of it.
    fn failure(&self, cause: &str) -> String {
        format!(
            "{}: {cause}",
            &self.url[..url::Position::AfterPort] // user and password were removed
        )
    }
}

/// User and password of the URL, as the header they become.
fn basic_auth(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = percent_decode_str(url.username()).collect::<Vec<u8>>();
    credentials.push(b':');
    credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
    let text = format!("Basic {}", data_encoding::BASE64.encode(&credentials));
    let mut value = HeaderValue::try_from(text).expect("Base64 is ASCII");
    value.set_sensitive(true);
    Some(value)
}

/// The content codings of a body. `identity` is none.
fn codings(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(CONTENT_ENCODING).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.map(<[u8]>::trim_ascii);
    let codings = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    let codings: Vec<_> = codings.map(String::from_utf8_lossy).collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// The causes of an error, without repetitions.
fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut cause = Some(error);
    let mut line = String::new();
    while let Some(error) = cause {
        let text = error.to_string().replace(['\r', '\n'], " ");
        if !line.ends_with(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line = line + separator + &text;
        }
        cause = error.source();
    }
    line
}

/// The `Accept-Encoding` of a request whose answer is read: nothing here decodes.
pub(crate) static IDENTITY: HeaderValue = HeaderValue::from_static("identity");

const MOST_REDIRECTS: u32 = 5;
/// Node's servers close an idle connection after 5 s; whoever closes first loses no request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a request may be begun anew that nobody has begun to process: a reload can close connections as they come about.
const MOST_UNBEGUN: u32 = 3;
const LONGEST_ANSWER_BYTES: usize = 256 << 10;

#[cfg(test)]
pub(crate) mod tests;

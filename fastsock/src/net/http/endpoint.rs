//! A URL of the settings, with the client that reaches it: the backend of uplinks, that of events, the webhook, a JWK set.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};
use url::Url;

use super::{Client, Target, basic_auth, settings::ClientSettings};
use crate::{
    config::Headers,
    error::{Error, ErrorKind, Result},
    tasks::Tasks,
};

/// A URL of the settings, and the client that reaches it.
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) client: Client,
    pub(crate) target: Target,
}

impl Endpoint {
    /// Prepares to reach the URL that this setting holds. Its connections are tasks of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the setting: the URL, a certificate file, or the proxy that the URL needs cannot be used.
    pub(crate) fn new(
        setting: &'static str,
        url: &str,
        settings: ClientSettings<'_>,
        tasks: Tasks,
    ) -> Result<Self> {
        let bad = || {
            let text = format!("{setting}: this build cannot reach such a URL");
            Error::new(ErrorKind::Config, text)
        };
        let url = Url::parse(url).map_err(|e| bad().with_source(e))?;
        let client = Client::new(settings, Some(&url), tasks)?;
        let target = client.target(&url).ok_or_else(bad)?;
        Ok(Self {
            url,
            client,
            target,
        })
    }

    /// The headers that follow from the URL: `Host`, and `Authorization` where it holds a user.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, self.target.host().clone());
        if let Some(authorization) = basic_auth(&self.url) {
            headers.insert(AUTHORIZATION, authorization);
        }
        headers
    }
}

/// Lays those headers of a setting that are `wanted` over what is there; one that is null removes. `Content-Length` and
/// `Transfer-Encoding` are not wanted: they follow from the body.
///
/// # Errors
/// `Config`, naming the setting and the header.
pub(crate) fn lay_over(
    headers: &mut HeaderMap,
    setting: &'static str,
    over: &Headers,
    wanted: impl Fn(&HeaderName) -> bool,
) -> Result<()> {
    for (name, value) in &over.0 {
        let bad = || {
            let text =
                format!("{setting}: {name:?} is not a header name, or its value is not allowed");
            Error::new(ErrorKind::Config, text)
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad().with_source(e))?;
        if frames_body(&name) {
            continue;
        }
        match value {
            Some(text) if wanted(&name) => {
                let mut value = HeaderValue::from_str(text).map_err(|e| bad().with_source(e))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => drop(headers.remove(name)),
        }
    }
    Ok(())
}

/// The error for a header that a setting may not hold, whatever its value.
pub(crate) fn not_allowed(setting: &'static str, name: &str) -> Error {
    let text = format!("{setting}: {name:?} is not allowed, or its value is not");
    Error::new(ErrorKind::Config, text)
}

/// Those of these headers that say how a body is framed.
pub(crate) fn framing(headers: &Headers) -> impl Iterator<Item = &str> {
    let given = headers.0.iter().filter(|(_, value)| value.is_some());
    let names = given.map(|(name, _)| name.as_str());
    names.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|n| frames_body(&n)))
}

fn frames_body(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}

//! `/`: a page for people. It is the same for everybody and has no data in it: its script asks the API with the token that is typed
//! into it. Nothing of it comes from elsewhere, and nothing but its own script and style runs.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http_body_util::{Either, Full};
use sha2::{Digest, Sha256};

use super::Answer;

pub(super) fn page() -> Answer {
    let mut answer = Answer::new(Either::Left(Full::new(Bytes::from_static(PAGE.as_bytes()))));
    let policy = HeaderValue::try_from(policy()).expect("it is ASCII");
    let fixed = |text: &'static str| HeaderValue::from_static(text);
    for (name, value) in [
        (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (X_FRAME_OPTIONS, fixed("DENY")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (CACHE_CONTROL, fixed("no-store")),
    ] {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// Only the script and the style of the page, by their digests.
fn policy() -> String {
    let digest = |tag: &str| {
        let inside = PAGE.split_once(&format!("<{tag}>"));
        let inside = inside.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        let (inside, _) = inside.expect("the page has one");
        data_encoding::BASE64.encode(&Sha256::digest(inside))
    };
    let (script, style) = (digest("script"), digest("style"));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

const PAGE: &str = include_str!("dashboard.html");

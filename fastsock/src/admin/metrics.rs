//! `/metrics`: all figures, in the format that the asker prefers.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::Request;

use super::{Answer, whole};
use crate::{
    gateway::shared::Shared,
    metrics::{self, MetricsFormat},
};

pub(super) fn answer<B>(shared: &Shared, request: &Request<B>) -> Answer {
    let accept = request.headers().get_all(ACCEPT).iter();
    let format = wanted(accept.filter_map(|value| value.to_str().ok()));
    let mut answer = whole(metrics::write(shared, format));
    let content_type = HeaderValue::from_static(format.content_type());
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// OpenMetrics for who asks for it by name, and no less than for plain text.
fn wanted<'a>(accept: impl Iterator<Item = &'a str>) -> MetricsFormat {
    let (mut open, mut plain) = (0.0, 0.0);
    for part in accept.flat_map(|value| value.split(',')) {
        let mut fields = part.split(';').map(str::trim);
        let media_type = fields.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0, "1.0.0");
        for field in fields {
            match field.split_once('=') {
                Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                Some(("version", value)) => version = value.trim().trim_matches('"'),
                _ => {}
            }
        }
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") && version == "1.0.0" {
            open = f32::max(open, quality);
        } else if media_type.eq_ignore_ascii_case("text/plain") {
            plain = f32::max(plain, quality);
        }
    }
    match open > 0.0 && open >= plain {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_prefers_it_by_name() {
        use MetricsFormat::{OpenMetrics, Text};
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("text/*;q=0.9,*/*", Text),
            ("application/openmetrics-text", OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            ("application/openmetrics-text; version=0.0.1", Text),
            (
                "Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.5, text/plain;q=0.6",
                Text,
            ),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=x", Text),
        ] {
            assert_eq!(wanted([accept].into_iter()), expected, "{accept}");
        }
    }
}

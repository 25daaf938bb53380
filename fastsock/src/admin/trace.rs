//! `/api/v1/trace`: what happens to one device, as server-sent events, for as long as the connection lives.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body_util::Either;
use hyper::{
    Method, Request, Response,
    body::{Body, Frame},
};
use tokio::time::{Interval, interval};

use super::{Answer, bad_request, only};
use crate::{gateway::shared::Shared, trace::Trace, types::ClientId};

/// The events of a trace, and a sign of life between them.
pub(crate) struct Events {
    trace: Trace,
    signs: Interval,
}

/// `GET /api/v1/trace?client_id=&payloads=`
pub(super) fn answer<B>(shared: &Shared, request: &Request<B>) -> Result<Answer, Answer> {
    only(Method::GET, request)?;
    let (mut client_id, mut with_payloads) = (None, false);
    let query = request.uri().query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("client_id", id) => client_id = ClientId::new(id),
            ("payloads", "1" | "on" | "true") => with_payloads = true,
            ("payloads", "0" | "off" | "false") => with_payloads = false,
            ("payloads", _) => return Err(bad_request("payloads: give true or false")),
            _ => return Err(bad_request("the parameters are client_id and payloads")),
        }
    }
    let client_id = client_id.ok_or_else(|| bad_request("client_id: give the id of a device"))?;
    let events = Events {
        trace: shared.status.tracer.listen(client_id, with_payloads),
        signs: interval(SIGN_EVERY),
    };
    let mut answer = Response::new(Either::Right(events));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |text: String| Poll::Ready(Some(Ok(Frame::data(text.into()))));
        if let Poll::Ready(event) = self.trace.poll_next(cx) {
            let Some(event) = event else {
                return Poll::Ready(None);
            };
            // JSON has no line breaks of its own.
            let name = event.what.as_str();
            return frame(format!(
                "event: {name}\ndata: {}\n\n",
                serde_json::json!(event)
            ));
        }
        match self.signs.poll_tick(cx) {
            Poll::Ready(_) => frame(":\n\n".into()), // the first says that it has begun
            Poll::Pending => Poll::Pending,
        }
    }
}

/// So that a proxy, or a listener, knows that it is still there.
const SIGN_EVERY: Duration = Duration::from_secs(15);

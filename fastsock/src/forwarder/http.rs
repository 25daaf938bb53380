//! Carries uplinks to the backend as HTTP POSTs: `post` is what an event has in common with them.

mod context;
mod headers;
pub(crate) mod post;
pub(crate) mod stamp;

use std::pin::pin;

use bytes::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};
use smallvec::smallvec;
use uuid::Uuid;

use self::{
    post::{Post, outcome},
    stamp::Stamp,
};
use super::{
    Attempts, Forward, Outcome, Outcomes,
    batch::{Batches, Delivery, Part, Turn},
    destination::{BodyForm, Destination},
    one_by_one,
    reply::Replies,
};
use crate::{
    config::UplinkBinary,
    error::Result,
    tasks::{BoxFuture, Tasks},
    types::{Payload, Uplink},
};

/// POSTs each uplink to the backend.
pub(crate) struct HttpForwarder {
    post: Post,
    form: Form,
    replies: Option<Replies>,
    /// `None`: each message is a POST of its own.
    batches: Option<Batches>,
}

/// What a body has of its message.
#[derive(Clone, Copy)]
enum Form {
    Json(UplinkBinary),
    Raw,
}

impl HttpForwarder {
    /// A forwarder to this destination. Its connections are tasks of `tasks`, so that group must outlive the last attempt.
    ///
    /// # Errors
    /// `Config`, naming the variable: no URL, or a proxy or certificate file that cannot be used.
    pub(crate) fn new(destination: &Destination<'_>, tasks: Tasks) -> Result<Self> {
        let batches = || Batches::new(destination.batch, destination.batch_wait);
        Ok(Self {
            post: Post::new(destination, tasks)?,
            form: match destination.form {
                BodyForm::Json(binary) => Form::Json(binary),
                BodyForm::Raw(_) => Form::Raw,
            },
            replies: None,
            batches: (destination.batch > 1).then(batches),
        })
    }

    /// The same, making downlinks of what the backend answers.
    pub(crate) fn with_replies(mut self, replies: Option<Replies>) -> Self {
        self.replies = replies;
        self
    }

    /// POSTs one message.
    async fn post_one(&self, uplink: &Uplink, number: u32) -> Outcome {
        let body = match self.form {
            Form::Json(binary) => body(uplink, binary),
            Form::Raw => uplink.payload.clone().into_bytes(),
        };
        let wanted = self.replies.as_ref().map_or(0, |r| r.most_bytes);
        // Pinned first: awaiting a future by value moves it, and this one is large.
        match pin!(self.post.send(uplink.into(), number, body, wanted)).await {
            Ok(answer) => {
                if let Some(replies) = &self.replies
                    && answer.status == StatusCode::OK
                {
                    replies.send(&uplink.client_id, &answer).await;
                }
                outcome(&answer)
            }
            Err(no_answer) => no_answer.into(),
        }
    }

    /// POSTs a batch, in halves when the backend does not want it.
    async fn post_batch(&self, batches: &Batches, number: u32, mut delivery: Delivery) {
        let Form::Json(binary) = self.form else {
            unreachable!("`Config::check` allows no batch of raw messages");
        };
        let _posting = batches.post();
        while let Some(part) = delivery.next() {
            let (id, body) = batch_body(&part, binary);
            let stamp = Stamp {
                id,
                ..Stamp::from(&part[0].1)
            };
            let outcome = self.post.attempt(stamp, number, body).await;
            delivery.done(part, &outcome, batches.is_to_split(&outcome));
        }
        batches.learn(&delivery);
    }
}

impl Forward<Uplink> for HttpForwarder {
    fn attempt<'a>(&'a self, uplinks: &'a [Uplink], number: u32) -> BoxFuture<'a, Outcomes> {
        let Some(batches) = &self.batches else {
            return Box::pin(async move {
                let outcome = pin!(self.post_one(&uplinks[0], number)).await;
                smallvec![outcome]
            });
        };
        Box::pin(async move {
            let (batch, mut answer) = match batches.join(uplinks, number).await {
                Turn::Post(batch, answer) => (batch, answer),
                Turn::Told(outcomes) => return outcomes,
            };
            let (number, delivery) = Delivery::new(batch);
            self.post_batch(batches, number, delivery).await;
            let outcomes = answer.try_recv();
            outcomes.expect("a worker POSTs only batches with its own messages in them")
        })
    }

    fn work<'a>(&'a self, attempts: &'a mut dyn Attempts<Uplink>) -> BoxFuture<'a, ()> {
        if self.batches.is_some() {
            return one_by_one(self, attempts);
        }
        Box::pin(async move {
            loop {
                let (uplinks, number) = attempts.current();
                let outcome = pin!(self.post_one(&uplinks[0], number)).await;
                if !attempts.next(&[outcome]) {
                    return;
                }
            }
        })
    }

    fn headers(&self, uplink: &Uplink, number: u32) -> Vec<(String, String)> {
        self.post.shown_headers(uplink.into(), number)
    }
}

/// `{"client_id":"…","data":"…"}`, byte for byte as `JSON.stringify` writes it.
pub(crate) fn body(uplink: &Uplink, binary: UplinkBinary) -> Bytes {
    let mut body = Vec::with_capacity(FRAME_BYTES + size(uplink, binary));
    write_object(&mut body, uplink, binary);
    body.push(b'}');
    body.into()
}

/// The objects of several messages as an array, each with its id, and the id of the whole: that of its message when it has
/// one, else one that is the same for the same messages.
fn batch_body(part: &Part, binary: UplinkBinary) -> (Uuid, Bytes) {
    let mut digest = Sha256::new();
    let mut body = Vec::new();
    for (_, uplink) in part {
        body.push(if body.is_empty() { b'[' } else { b',' });
        write_object(&mut body, uplink, binary);
        body.extend_from_slice(br#","id":""#);
        let mut text = Uuid::encode_buffer();
        body.extend_from_slice(uplink.id.hyphenated().encode_lower(&mut text).as_bytes());
        body.extend_from_slice(br#""}"#);
        digest.update(uplink.id.as_bytes());
    }
    body.push(b']');
    let id = match &part[..] {
        [(_, alone)] => alone.id,
        _ => {
            let digest: [u8; 32] = digest.finalize().into();
            let (id, _) = digest.split_first_chunk().expect("16 of 32 bytes");
            Uuid::new_v8(*id)
        }
    };
    (id, body.into())
}

/// An object but for its closing brace.
fn write_object(body: &mut Vec<u8>, uplink: &Uplink, binary: UplinkBinary) {
    body.extend_from_slice(br#"{"client_id":"#);
    write_json(body, uplink.client_id.as_str());
    body.extend_from_slice(br#","data":"#);
    let payload = &uplink.payload;
    if is_base64(payload, binary) {
        body.push(b'"');
        let start = body.len();
        body.resize(start + data_encoding::BASE64.encode_len(payload.len()), 0);
        data_encoding::BASE64.encode_mut(payload.as_bytes(), &mut body[start..]);
        body.extend_from_slice(br#"","encoding":"base64""#);
    } else {
        write_json(body, &payload.to_text());
    }
}

/// What its client id and data take in the body, about.
fn size(uplink: &Uplink, binary: UplinkBinary) -> usize {
    let payload = &uplink.payload;
    let data = match is_base64(payload, binary) {
        true => data_encoding::BASE64.encode_len(payload.len()),
        false => payload.len() + ESCAPES_BYTES,
    };
    uplink.client_id.as_str().len() + data
}

fn is_base64(payload: &Payload, binary: UplinkBinary) -> bool {
    binary == UplinkBinary::Base64 && !payload.is_text()
}

/// serde_json escapes what `JSON.stringify` escapes: quotes, backslashes and control characters, the same way.
fn write_json(body: &mut Vec<u8>, text: &str) {
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Looks at every byte, so that the compiler can look at many at once.
    if !text.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        body.push(b'"');
        body.extend_from_slice(text.as_bytes());
        return body.push(b'"');
    }
    serde_json::to_writer(body, text).expect("a Vec takes all, and text is always valid JSON");
}

const FRAME_BYTES: usize = r#"{"client_id":"","data":"","encoding":"base64"}"#.len();
/// Room for the escapes of a usual payload.
const ESCAPES_BYTES: usize = 32;

#[cfg(test)]
mod tests;

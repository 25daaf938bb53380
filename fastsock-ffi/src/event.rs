//! `fastsock_event`: one thing that happened, as hooks get it and as the poll loop drains it.

use std::{ptr, sync::Arc, time::SystemTime};

use fastsock::{
    Client, CloseReason, ConnectRequest, Context, Error, LostReason, Sent, State, Uplink,
    events::{Event, EventQueue},
};
use safer_ffi::derive_ReprC;

use crate::{
    status::fastsock_status,
    text::{fastsock_kind, fastsock_str, unix_ms},
};

/// The type of an event.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_event_type {
    /// A device wants to connect: `request`. Answer the `ticket`.
    AUTHENTICATE = 1,
    /// A device connected: from now on you can send to it.
    CONNECT = 2,
    /// A device sent a message: `payload`. Answer the `ticket`; without one, the host has taken the message.
    UPLINK = 3,
    /// A session ended: `reason` is the word for it, `code` its close code, or 0 without one.
    DISCONNECT = 4,
    /// The bridge gave up an uplink: `reason` is the word for it, `code` its fastsock_lost.
    UPLINK_LOST = 5,
    /// The bridge or its broker link changed state: `code` is its fastsock_state, `reason` the word for it.
    STATE = 6,
    /// The result of fastsock_bridge_send_nowait with this `tag`: `status` as fastsock_bridge_send would have returned it; with OK,
    /// `code` is the fastsock_sent. `reason` is the word for either, `payload` says why it failed.
    SENT = 7,
    /// Kept messages of the device `client_id` are lost: `reason` is the word for it (mailbox_full, mailbox_expired, mailbox_bad), `code` how
    /// many. The device may be away; whichever gateway finds it tells, once.
    MAILBOX_LOST = 8,
}

/// What a bridge is doing.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_state {
    /// Accepting devices; the broker link is up, or the broker is embedded.
    RUNNING = 1,
    /// Accepting devices; the broker cannot be reached.
    DEGRADED = 2,
    /// The broker link is back. What was published between `gap_from_ms` and `gap_to_ms` may not have arrived.
    GAP = 3,
    /// Stop was called.
    STOPPING = 4,
    /// Nothing runs any more.
    STOPPED = 5,
    /// A drain has begun: nobody new is let in, and those who are here are closed one after the other.
    DRAINING = 6,
}

/// Why the bridge gave up an uplink.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_lost {
    /// A reason that is newer than this header.
    OTHER = 0,
    /// No remote_url is set and no hook took it. There is no event for it; only the statistics count it.
    NO_REMOTE_URL = 1,
    /// The hook failed or did not answer in time.
    HOOK_FAILED = 2,
    /// The backend refused this message for good.
    REJECTED = 3,
    /// The backend failed on this message again and again while it took others.
    POISON = 4,
    /// It grew older than the age limit.
    TOO_OLD = 5,
    /// The lane was full and uplink_full is drop_oldest.
    FULL = 6,
    /// It was still waiting when the bridge stopped.
    SHUTDOWN = 7,
    /// Redis lost it: the spool there was emptied, or replaced by an empty one. Only the books tell of it.
    SPOOL = 8,
}

/// Where a sent message went.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_sent {
    /// Into the outbox of a session of this bridge.
    HERE = 1,
    /// Published: Redis says that another gateway has the device.
    ELSEWHERE = 2,
    /// No gateway has the device; the message is gone.
    OFFLINE = 3,
    /// In the mailbox of the device, which is away.
    KEPT = 4,
    /// Not known yet: Redis is asked, and an event SENT will say. Only fastsock_bridge_send_nowait answers it.
    PENDING = 5,
}

impl From<Sent> for fastsock_sent {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Here => Self::HERE,
            Sent::Elsewhere => Self::ELSEWHERE,
            Sent::Offline => Self::OFFLINE,
            Sent::Kept => Self::KEPT,
        }
    }
}

/// One header of a request.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_header {
    /// In lower case.
    pub name: fastsock_str,
    /// As sent; bytes that are not UTF-8 become U+FFFD.
    pub value: fastsock_str,
}

/// The head of a device's request. May hold tokens: do not log it.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_request {
    /// The request target, path and query.
    pub target: fastsock_str,
    /// The decoded `token` of the target; empty when there is none.
    pub token: fastsock_str,
    /// The bearer token of the Authorization header; empty when there is none.
    pub bearer: fastsock_str,
    /// The token of a fastsock-token.<token> subprotocol; empty when there is none.
    pub subprotocol: fastsock_str,
    /// The name in a client certificate that TLS has checked; empty when there is none.
    pub certificate: fastsock_str,
    /// The headers in the order sent.
    pub headers: *const fastsock_header,
    /// How many headers there are.
    pub header_count: usize,
    /// The method: always GET.
    pub method: fastsock_str,
    /// The path as sent, without the query.
    pub path: fastsock_str,
    /// The query as sent.
    pub query: fastsock_str,
    /// The named parts of the path by device_paths, percent-decoded; nobody has confirmed them yet.
    pub parts: *const fastsock_header,
    /// How many parts there are.
    pub part_count: usize,
    /// The client id that the parts form; the answer has to name the same one. Empty without device_paths.
    pub client_id: fastsock_str,
    /// The subprotocols that the device offers, in its order, without fastsock-token.<token>.
    pub subprotocols: *const fastsock_str,
    /// How many it offers.
    pub subprotocol_count: usize,
    /// The user of Authorization: Basic; empty when there is none.
    pub basic_user: fastsock_str,
    /// Its password: bytes, which need not be UTF-8.
    pub basic_password: fastsock_str,
    /// The subject of a client certificate that TLS has checked; empty when there is none.
    pub tls_subject: fastsock_str,
    /// The organisation in that subject, if there is exactly one.
    pub tls_organization: fastsock_str,
    /// The alternative names in the certificate.
    pub tls_sans: *const fastsock_str,
    /// How many alternative names there are.
    pub tls_san_count: usize,
    /// The name of its route; empty for the default one.
    pub route: fastsock_str,
}

/// What is known of a session beside its name.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_context {
    /// The path of the request, without its query; a token in it is ***.
    pub path: fastsock_str,
    /// The named parts of the path by device_paths.
    pub parts: *const fastsock_header,
    /// How many parts there are.
    pub part_count: usize,
    /// The subprotocol that the device was told; empty when none.
    pub subprotocol: fastsock_str,
    /// Milliseconds since 1970: when it connected.
    pub connected_ms: u64,
    /// A JSON object of whoever let it in; empty when there is none.
    pub metadata: fastsock_str,
    /// Its groups by the word of whoever let it in.
    pub groups: *const fastsock_str,
    /// How many groups there are.
    pub group_count: usize,
    /// The headers that remote_forward_headers names.
    pub headers: *const fastsock_header,
    /// How many headers there are.
    pub header_count: usize,
    /// The name of its route; empty for the default one.
    pub route: fastsock_str,
}

/// One event. Fields that its type does not name are zero or empty. All that it points to belongs to the library and is valid, in a
/// hook until the hook returns, from fastsock_bridge_poll until the next poll or free of that bridge.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_event {
    /// A fastsock_event_type. Skip numbers that you do not know.
    pub r#type: u32,
    /// The fastsock_kind of the payload.
    pub kind: u32,
    /// Answer it with one of the fastsock_bridge_resolve_ functions; 0 when there is nothing to answer.
    pub ticket: u64,
    /// The session; never reused within one bridge. 0 before the device is connected.
    pub session_id: u64,
    /// UPLINK, UPLINK_LOST: the number of the message within its session, from 1.
    pub seq: u64,
    /// Milliseconds since 1970: when the bridge read the message, or the device connected.
    pub time_ms: u64,
    /// The name of the device.
    pub client_id: fastsock_str,
    /// UPLINK, UPLINK_LOST: the message. SENT: why it failed, in words.
    pub payload: fastsock_str,
    /// The word for what happened; static.
    pub reason: fastsock_str,
    /// Address and port of the device, such as "192.0.2.1:50000" or "[2001:db8::1]:50000". The address alone where a proxy sent no
    /// port: "192.0.2.1", "2001:db8::1".
    pub remote_addr: fastsock_str,
    /// A number that goes with the reason.
    pub code: u32,
    /// SENT: a fastsock_status. 0 in all others.
    pub status: u32,
    /// STATE with GAP: the last moment the link was known to deliver.
    pub gap_from_ms: u64,
    /// STATE with GAP: the moment it delivered again.
    pub gap_to_ms: u64,
    /// UPLINK, UPLINK_LOST: the UUIDv7 of the message; the Idempotency-Key of each attempt to deliver it.
    pub id: [u8; 16],
    /// AUTHENTICATE: the head of the device's request.
    pub request: *const fastsock_request,
    /// CONNECT, DISCONNECT, UPLINK, UPLINK_LOST: the epoch of the session, higher than those of the device's sessions before it, over all
    /// gateways that share a Redis and over restarts.
    pub epoch: u64,
    /// CONNECT, UPLINK, DISCONNECT, UPLINK_LOST: what is known of the session beside its name; NULL when there is no more to know.
    pub context: *const fastsock_context,
    /// SENT: what the host gave to fastsock_bridge_send_nowait.
    pub tag: u64,
}

/// Drained events and what their views point to. Views are valid until the next `fill`.
#[derive(Default)]
pub(crate) struct Batch {
    events: Vec<Event>,
    texts: Vec<String>,
    headers: Vec<Vec<fastsock_header>>,
    #[expect(
        clippy::vec_box,
        reason = "a request stays where it is when the vector grows"
    )]
    requests: Vec<Box<fastsock_request>>,
    lists: Vec<Vec<fastsock_str>>,
    #[expect(
        clippy::vec_box,
        reason = "a context stays where it is when the vector grows"
    )]
    contexts: Vec<Box<fastsock_context>>,
}

// SAFETY: the pointers in `headers`, `requests`, `lists` and `contexts` point into `events` of the same batch, which no thread changes
// without `&mut` to all of it.
unsafe impl Send for Batch {}

impl Batch {
    /// Forgets what it held and drains up to `max` events.
    pub(crate) fn fill(&mut self, queue: &EventQueue, max: usize) -> usize {
        self.clear();
        queue.drain(max, &mut self.events)
    }

    /// Forgets what it held.
    fn clear(&mut self) {
        self.contexts.clear();
        self.requests.clear();
        self.lists.clear();
        self.headers.clear();
        self.texts.clear();
        self.events.clear();
    }

    /// The view of one event; the event stays here.
    pub(crate) fn view(&mut self, index: usize) -> fastsock_event {
        let mut view = self.view_without_context(index);
        // The event holds the context, so what the view points to stays.
        let context = match &self.events[index] {
            Event::Connect(client) | Event::Disconnect { client, .. } => client.context.as_deref(),
            Event::Uplink { uplink, .. } | Event::UplinkLost { uplink, .. } => {
                uplink.context.as_deref()
            }
            _ => None,
        };
        if let Some(context) = context {
            let (headers, lists) = (&mut self.headers, &mut self.lists);
            let context = Box::new(context_of(context, headers, lists));
            view.context = ptr::from_ref(&*context);
            self.contexts.push(context);
        }
        view
    }

    fn view_without_context(&mut self, index: usize) -> fastsock_event {
        match &self.events[index] {
            Event::Authenticate { ticket, request } => {
                let ticket = ticket.0;
                let remote_addr = keep(&mut self.texts, request.remote_addr.to_string());
                let (headers, lists) = (&mut self.headers, &mut self.lists);
                let request = Box::new(view_of(request, headers, lists));
                let pointer = ptr::from_ref(&*request);
                self.requests.push(request);
                fastsock_event {
                    ticket,
                    remote_addr,
                    request: pointer,
                    ..of(fastsock_event_type::AUTHENTICATE)
                }
            }
            Event::Connect(client) => {
                of_client(fastsock_event_type::CONNECT, client, &mut self.texts)
            }
            Event::Uplink { ticket, uplink } => fastsock_event {
                ticket: ticket.map_or(0, |t| t.0),
                ..of_uplink(fastsock_event_type::UPLINK, uplink)
            },
            Event::Disconnect { client, reason } => fastsock_event {
                reason: fastsock_str::of(reason.as_str()),
                code: match reason {
                    CloseReason::ByDevice(code) => u32::from(*code),
                    reason => reason.code().map_or(0, u32::from),
                },
                ..of_client(fastsock_event_type::DISCONNECT, client, &mut self.texts)
            },
            Event::UplinkLost { uplink, reason } => fastsock_event {
                reason: fastsock_str::of(reason.as_str()),
                code: fastsock_lost::from(*reason) as u32,
                ..of_uplink(fastsock_event_type::UPLINK_LOST, uplink)
            },
            Event::MailboxLost {
                client_id,
                reason,
                count,
            } => fastsock_event {
                client_id: fastsock_str::of(client_id.as_str()),
                reason: fastsock_str::of(reason),
                code: u32::try_from(*count).unwrap_or(u32::MAX),
                time_ms: unix_ms(SystemTime::now()),
                ..of(fastsock_event_type::MAILBOX_LOST)
            },
            Event::State(state) => of_state(state),
            Event::Sent {
                tag,
                client_id,
                result,
            } => fastsock_event {
                tag: *tag,
                client_id: fastsock_str::of(client_id.as_str()),
                ..of_result(result, &mut self.texts)
            },
            // A kind of event that this file does not know yet: its type 0 is skipped by everyone.
            _ => fastsock_event::EMPTY,
        }
    }
}

impl fastsock_event {
    const EMPTY: Self = Self {
        r#type: 0,
        kind: fastsock_kind::TEXT as u32,
        ticket: 0,
        session_id: 0,
        seq: 0,
        time_ms: 0,
        client_id: fastsock_str::EMPTY,
        payload: fastsock_str::EMPTY,
        reason: fastsock_str::EMPTY,
        remote_addr: fastsock_str::EMPTY,
        code: 0,
        status: fastsock_status::OK as u32,
        gap_from_ms: 0,
        gap_to_ms: 0,
        id: [0; 16],
        request: ptr::null(),
        epoch: 0,
        context: ptr::null(),
        tag: 0,
    };
}

impl From<&State> for fastsock_state {
    fn from(state: &State) -> Self {
        match state {
            State::Degraded => Self::DEGRADED,
            State::Gap { .. } => Self::GAP,
            State::Draining => Self::DRAINING,
            State::Stopping => Self::STOPPING,
            State::Stopped => Self::STOPPED,
            _ => Self::RUNNING,
        }
    }
}

impl From<LostReason> for fastsock_lost {
    fn from(reason: LostReason) -> Self {
        match reason {
            LostReason::NoRemoteUrl => Self::NO_REMOTE_URL,
            LostReason::HookFailed => Self::HOOK_FAILED,
            LostReason::Rejected => Self::REJECTED,
            LostReason::Poison => Self::POISON,
            LostReason::TooOld => Self::TOO_OLD,
            LostReason::Full => Self::FULL,
            LostReason::Shutdown => Self::SHUTDOWN,
            LostReason::Spool => Self::SPOOL,
            _ => Self::OTHER,
        }
    }
}

fn of(kind: fastsock_event_type) -> fastsock_event {
    fastsock_event {
        r#type: kind as u32,
        ..fastsock_event::EMPTY
    }
}

fn of_uplink(kind: fastsock_event_type, uplink: &Uplink) -> fastsock_event {
    let payload = match uplink.payload.is_text() {
        true => fastsock_kind::TEXT,
        false => fastsock_kind::BINARY,
    };
    fastsock_event {
        kind: payload as u32,
        session_id: uplink.session_id.0,
        seq: uplink.seq,
        time_ms: unix_ms(uplink.received_at),
        client_id: fastsock_str::of(uplink.client_id.as_str()),
        payload: fastsock_str::of(uplink.payload.as_bytes()),
        id: *uplink.id.as_bytes(),
        epoch: uplink.epoch,
        ..of(kind)
    }
}

fn of_client(
    kind: fastsock_event_type,
    client: &Client,
    texts: &mut Vec<String>,
) -> fastsock_event {
    fastsock_event {
        session_id: client.session_id.0,
        time_ms: unix_ms(client.connected_at),
        client_id: fastsock_str::of(client.client_id.as_str()),
        remote_addr: keep(texts, client.remote_addr.to_string()),
        epoch: client.epoch,
        ..of(kind)
    }
}

fn of_state(state: &State) -> fastsock_event {
    let (from, to) = match state {
        State::Gap { from, to } => (unix_ms(*from), unix_ms(*to)),
        _ => (0, 0),
    };
    fastsock_event {
        code: fastsock_state::from(state) as u32,
        reason: fastsock_str::of(state.as_str()),
        time_ms: unix_ms(SystemTime::now()),
        gap_from_ms: from,
        gap_to_ms: to,
        ..of(fastsock_event_type::STATE)
    }
}

fn of_result(result: &Result<Sent, Arc<Error>>, texts: &mut Vec<String>) -> fastsock_event {
    let sent = of(fastsock_event_type::SENT);
    match result {
        Ok(place) => fastsock_event {
            code: fastsock_sent::from(*place) as u32,
            reason: fastsock_str::of(place.as_str()),
            ..sent
        },
        Err(error) => {
            let status = fastsock_status::from(error.kind());
            fastsock_event {
                status: status as u32,
                reason: fastsock_str::of(status.name().to_bytes()),
                payload: keep(texts, error.to_line()),
                ..sent
            }
        }
    }
}

/// Keeps a text beside the events; its bytes stay where they are when the vector grows.
fn keep(texts: &mut Vec<String>, text: String) -> fastsock_str {
    let view = fastsock_str::of(&text);
    texts.push(text);
    view
}

/// Keeps names with values beside the events: where they are, and how many.
fn keep_pairs<'a>(
    kept: &mut Vec<Vec<fastsock_header>>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> (*const fastsock_header, usize) {
    let views: Vec<_> = pairs
        .map(|(name, value)| fastsock_header {
            name: fastsock_str::of(name),
            value: fastsock_str::of(value),
        })
        .collect();
    if views.is_empty() {
        return (ptr::null(), 0);
    }
    let place = (views.as_ptr(), views.len());
    kept.push(views);
    place
}

/// The same for texts.
fn keep_list(kept: &mut Vec<Vec<fastsock_str>>, texts: &[String]) -> (*const fastsock_str, usize) {
    if texts.is_empty() {
        return (ptr::null(), 0);
    }
    let views: Vec<_> = texts.iter().map(fastsock_str::of).collect();
    let place = (views.as_ptr(), views.len());
    kept.push(views);
    place
}

fn optional(text: &Option<String>) -> fastsock_str {
    text.as_ref().map_or(fastsock_str::EMPTY, fastsock_str::of)
}

fn context_of(
    context: &Context,
    kept: &mut Vec<Vec<fastsock_header>>,
    lists: &mut Vec<Vec<fastsock_str>>,
) -> fastsock_context {
    let parts = keep_pairs(kept, context.parts.iter());
    let headers = context.headers.iter().map(|(n, v)| (&**n, &**v));
    let headers = keep_pairs(kept, headers);
    let groups = keep_list(lists, &context.groups);
    let metadata = context.metadata.as_ref();
    fastsock_context {
        path: fastsock_str::of(&context.path),
        parts: parts.0,
        part_count: parts.1,
        subprotocol: optional(&context.subprotocol),
        connected_ms: unix_ms(context.connected_at),
        metadata: metadata.map_or(fastsock_str::EMPTY, |m| fastsock_str::of(m.as_str())),
        groups: groups.0,
        group_count: groups.1,
        headers: headers.0,
        header_count: headers.1,
        route: optional(&context.route),
    }
}

fn view_of(
    request: &ConnectRequest,
    kept: &mut Vec<Vec<fastsock_header>>,
    lists: &mut Vec<Vec<fastsock_str>>,
) -> fastsock_request {
    let headers = request.headers.iter().map(|(n, v)| (&**n, &**v));
    let headers = keep_pairs(kept, headers);
    let parts = keep_pairs(kept, request.parts.iter());
    let subprotocols = keep_list(lists, &request.subprotocols);
    let credentials = &request.credentials;
    let basic = credentials.basic.as_deref();
    let names = request.certificate_names.as_deref();
    let sans = names.map_or((ptr::null(), 0), |names| keep_list(lists, &names.sans));
    fastsock_request {
        target: fastsock_str::of(&request.target),
        token: optional(&credentials.token),
        bearer: optional(&credentials.bearer),
        subprotocol: optional(&credentials.subprotocol),
        certificate: optional(&credentials.certificate),
        headers: headers.0,
        header_count: headers.1,
        method: fastsock_str::of(request.method()),
        path: fastsock_str::of(request.path()),
        query: fastsock_str::of(request.query()),
        parts: parts.0,
        part_count: parts.1,
        client_id: request
            .client_id
            .as_ref()
            .map_or(fastsock_str::EMPTY, |id| fastsock_str::of(id.as_str())),
        subprotocols: subprotocols.0,
        subprotocol_count: subprotocols.1,
        basic_user: basic.map_or(fastsock_str::EMPTY, |b| fastsock_str::of(&b.user)),
        basic_password: basic.map_or(fastsock_str::EMPTY, |b| fastsock_str::of(&b.password)),
        tls_subject: names.map_or(fastsock_str::EMPTY, |n| fastsock_str::of(&n.subject)),
        tls_organization: names.map_or(fastsock_str::EMPTY, |n| optional(&n.organization)),
        tls_sans: sans.0,
        tls_san_count: sans.1,
        route: optional(&request.route),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpStream},
        time::Duration,
    };

    use fastsock::{
        Config, blocking,
        events::{EventOptions, Uplinks},
    };

    use super::*;

    fn queue(capacity: usize) -> (Arc<fastsock::events::EventHooks>, EventQueue) {
        let options = EventOptions::default().uplinks(Uplinks::Take);
        EventQueue::new(options.capacity(capacity).capacity_bytes(1 << 30)).unwrap()
    }

    /// The events of a device that connects, says "hello" and goes.
    fn life_of_a_device() -> Vec<Event> {
        let (hooks, queue) = queue(64);
        let config = Config::default().websocket_port(0u16);
        let bridge =
            blocking::Bridge::builder(config.listen_addr(Some(Ipv4Addr::LOCALHOST.into())));
        let bridge = bridge.shared_hooks(hooks).start().unwrap();
        let mut device = TcpStream::connect(bridge.local_addr()).unwrap();
        let upgrade = "GET /?token=dev1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        device.write_all(upgrade.as_bytes()).unwrap();
        assert!(device.read(&mut [0; 512]).unwrap() > 12);
        device.write_all(b"\x81\x85\0\0\0\0hello").unwrap();
        let mut events = Vec::new();
        while !matches!(events.last(), Some(Event::Uplink { .. })) {
            assert!(queue.wait(Duration::from_secs(20)));
            queue.drain(1, &mut events);
        }
        drop(device);
        while !matches!(events.last(), Some(Event::Disconnect { .. })) {
            assert!(queue.wait(Duration::from_secs(20)));
            queue.drain(1, &mut events);
        }
        bridge.stop(Duration::from_secs(8));
        events
    }

    fn text(view: fastsock_str) -> String {
        // SAFETY: a view of a batch that is alive.
        let bytes = unsafe { std::slice::from_raw_parts(view.ptr.cast::<u8>(), view.len) };
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_view_shows_what_happened() {
        let mut batch = Batch {
            events: life_of_a_device(),
            ..Batch::default()
        };
        let views: Vec<_> = (0..batch.events.len()).map(|i| batch.view(i)).collect();
        let types: Vec<_> = views.iter().map(|view| view.r#type).collect();
        assert_eq!(types, [2, 3, 4], "connect, uplink, disconnect");
        for view in &views {
            assert_eq!(text(view.client_id), "dev1");
            assert!(view.session_id == views[0].session_id && view.time_ms > 1_700_000_000_000);
        }
        assert!(text(views[0].remote_addr).starts_with("127.0.0.1:"));
        assert_eq!(
            (text(views[1].payload).as_str(), views[1].seq),
            ("hello", 1)
        );
        assert_eq!(text(views[2].reason), "connection_lost");
    }
}

//! `fastsock_event`: one thing that happened, as hooks get it and as the poll loop drains it.

use std::{ptr, time::SystemTime};

use fastsock::{
    Client, CloseReason, ConnectRequest, LostReason, State, Uplink,
    events::{Event, EventQueue},
};
use safer_ffi::derive_ReprC;

use crate::text::{fastsock_kind, fastsock_str, unix_ms};

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
    /// UPLINK, UPLINK_LOST: the message.
    pub payload: fastsock_str,
    /// The word for what happened; static.
    pub reason: fastsock_str,
    /// Address and port of the device, such as "192.0.2.1:50000" or "[2001:db8::1]:50000". The address alone where a proxy sent no
    /// port: "192.0.2.1", "2001:db8::1".
    pub remote_addr: fastsock_str,
    /// A number that goes with the reason.
    pub code: u32,
    /// 0.
    pub reserved: u32,
    /// STATE with GAP: the last moment the link was known to deliver.
    pub gap_from_ms: u64,
    /// STATE with GAP: the moment it delivered again.
    pub gap_to_ms: u64,
    /// UPLINK, UPLINK_LOST: the UUIDv7 of the message; the Idempotency-Key of each attempt to deliver it.
    pub id: [u8; 16],
    /// AUTHENTICATE: the head of the device's request.
    pub request: *const fastsock_request,
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
}

// SAFETY: the pointers in `headers` and `requests` point into `events` of the same batch, which no thread changes
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
        self.requests.clear();
        self.headers.clear();
        self.texts.clear();
        self.events.clear();
    }

    /// The view of one event; the event stays here.
    pub(crate) fn view(&mut self, index: usize) -> fastsock_event {
        match &self.events[index] {
            Event::Authenticate { ticket, request } => fastsock_event {
                ticket: ticket.0,
                remote_addr: keep(&mut self.texts, request.remote_addr.to_string()),
                request: keep_request(&mut self.requests, &mut self.headers, request),
                ..of(fastsock_event_type::AUTHENTICATE)
            },
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
            Event::State(state) => of_state(state),
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
        reserved: 0,
        gap_from_ms: 0,
        gap_to_ms: 0,
        id: [0; 16],
        request: ptr::null(),
    };
}

impl From<&State> for fastsock_state {
    fn from(state: &State) -> Self {
        match state {
            State::Degraded => Self::DEGRADED,
            State::Gap { .. } => Self::GAP,
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

/// Keeps a text beside the events; its bytes stay where they are when the vector grows.
fn keep(texts: &mut Vec<String>, text: String) -> fastsock_str {
    let view = fastsock_str::of(&text);
    texts.push(text);
    view
}

#[expect(clippy::vec_box, reason = "see Batch")]
fn keep_request(
    requests: &mut Vec<Box<fastsock_request>>,
    headers: &mut Vec<Vec<fastsock_header>>,
    request: &ConnectRequest,
) -> *const fastsock_request {
    let optional =
        |text: &Option<String>| text.as_ref().map_or(fastsock_str::EMPTY, fastsock_str::of);
    let views: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| fastsock_header {
            name: fastsock_str::of(name),
            value: fastsock_str::of(value),
        })
        .collect();
    let view = Box::new(fastsock_request {
        target: fastsock_str::of(&request.target),
        token: optional(&request.credentials.token),
        bearer: optional(&request.credentials.bearer),
        subprotocol: optional(&request.credentials.subprotocol),
        certificate: optional(&request.credentials.certificate),
        headers: views.as_ptr(),
        header_count: views.len(),
    });
    let pointer = ptr::from_ref(&*view);
    headers.push(views);
    requests.push(view);
    pointer
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpStream},
        time::Duration,
    };

    use fastsock::{
        Config, Hooks, Ticket, blocking,
        events::{EventOptions, Uplinks},
    };

    use super::*;

    fn queue(capacity: usize) -> (std::sync::Arc<fastsock::events::EventHooks>, EventQueue) {
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

    /// Processor time of this thread in nanoseconds: wall time would count what else the machine does.
    fn thread_time() -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the struct lives on this stack.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    /// From the hook to the struct that C reads: two locks, a copy of the message's handle, a view. One at a time, the
    /// descriptor is made readable and cleared for each event, which are two system calls.
    #[test]
    #[ignore = "a benchmark: make ffi-bench"]
    fn cost_of_an_event() {
        let uplink = life_of_a_device()
            .into_iter()
            .find_map(|event| match event {
                Event::Uplink { uplink, .. } => Some(uplink),
                _ => None,
            });
        let uplink = uplink.unwrap();
        for (how, burst) in [("one at a time", 1), ("in batches of 64", 64)] {
            let (hooks, queue) = queue(1024);
            let mut batch = Batch::default();
            let (mut bytes, begin) = (0, thread_time());
            for _ in 0..EVENTS / burst {
                for ticket in 1..=burst {
                    hooks.on_uplink(&uplink, Ticket(ticket));
                }
                for index in 0..batch.fill(&queue, 64) {
                    bytes += batch.view(index).payload.len;
                }
            }
            let each = (thread_time() - begin) as f64 / EVENTS as f64;
            assert_eq!(bytes as u64, EVENTS * 5);
            println!("C event queue, {how}: {each:.0} ns an event (at most 300 in batches)");
            assert!(burst == 1 || cfg!(debug_assertions) || each <= 300.0);
        }
    }

    const EVENTS: u64 = 640_000;
}

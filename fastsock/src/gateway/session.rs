//! One device on one task: its socket, its heartbeat, its downlinks out and its uplinks in.

mod acks;
mod clock;
mod closing;
mod kept;
mod waiting;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use self::{acks::Acks, waiting::Next};
use crate::{
    gateway::{
        limits::Permits,
        shared::Shared,
        socket::{Socket, Written},
    },
    pure::{
        ahead::Ahead,
        heartbeat::Heartbeat,
        limits::{Meter, Pace},
        receipts::Pledge,
    },
    registry::seat::Seat,
    tasks::BoxFuture,
    trace::{Traced, TracedMessage},
    types::{CloseReason, Payload, Uplink},
    uplinks::Room,
};

/// One device on one task. Nobody else touches its socket.
pub(crate) struct Session {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    socket: Socket,
    heartbeat: Heartbeat,
    timer: Pin<Box<Sleep>>,
    seq: u64,
    reading: Reading,
    writing: Writing,
    /// Since when downlinks wait for more of them ([`Session::may_gather`]).
    gathering_since: Option<Instant>,
    /// What it has read while its messages waited.
    ahead: Option<Box<Ahead>>,
    /// Its rates, if they are limited. Over them it takes no message, whatever `reading` is: pings count as well.
    meter: Option<Box<Meter>>,
    /// It speaks `fastsock.v1.ack`.
    acks: Option<Box<Acks>>,
    /// It has left its seat, and only hears its device out.
    is_leaving: bool,
    /// Given back at the end.
    permits: Permits,
}

/// Whether the session takes messages of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// Not while its lane, or all lanes together, have no room.
    Paused {
        since: Instant,
    },
    /// Not until a hook has answered about the last one and the spool has it.
    Undecided,
}

/// Whether the socket takes what is written. What waits in it beside downlinks is its own affair ([`Socket::has_queued`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Flowing,
    /// Nothing since then, when it had taken so many bytes.
    Stalled {
        since: Instant,
        written_bytes: u64,
    },
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        seat: Arc<Seat>,
        socket: Socket,
        permits: Permits,
    ) -> Self {
        let now = Instant::now();
        let interval = shared.config.listen.ping_interval;
        let heartbeat = Heartbeat::new(interval, now, fastrand::f64(), shared.started);
        let timer = Box::pin(sleep_until(
            heartbeat.deadline().unwrap_or_else(|| now + FAR_FUTURE),
        ));
        let meter = Meter::new(&shared.config, now);
        let is_full = shared.lanes.room(&seat.client_id) == Room::Wait; // from before
        let mut session = Self {
            shared,
            seat,
            socket,
            heartbeat,
            timer,
            seq: 0,
            reading: Reading::Open,
            writing: Writing::Flowing,
            gathering_since: None,
            ahead: None,
            meter,
            acks: None,
            is_leaving: false,
            permits,
        };
        if is_full {
            session.pause();
        }
        session
    }

    /// Lives until the session ends, and sees it out.
    pub(crate) async fn run(mut self) {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        // Boxed: an idle session does not pay for the room that closing takes.
        Box::pin(self.end(reason)).await;
    }

    /// One turn: told to close? write, read, and look at the clock. Everything that wakes the task ends up here.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let heard = self.seat.listen(cx.waker());
        let gathers = heard.may_gather() && self.may_gather();
        let since = self.gathering_since;
        self.gathering_since = gathers.then(|| since.unwrap_or_else(Instant::now));
        if let Err(reason) = self.write(cx, heard.has_downlinks && !gathers) {
            return Poll::Ready(heard.close.unwrap_or(reason));
        }
        if heard.has_kept
            && let Err(reason) = self.write_kept(cx)
        {
            return Poll::Ready(heard.close.unwrap_or(reason));
        }
        if let Some(reason) = heard.close {
            if heard.has_downlinks && matches!(reason, CloseReason::Shutdown | CloseReason::Drain) {
                self.write_the_rest(cx);
            }
            return Poll::Ready(reason);
        }
        let read = self.read(cx);
        // Else nobody would come back for them.
        if gathers && (read.is_err() || !self.may_gather()) {
            self.gathering_since = None;
            let written = self.write(cx, true);
            if let Err(reason) = read.and(written) {
                return Poll::Ready(reason);
            }
        } else if let Err(reason) = read {
            return Poll::Ready(reason);
        }
        // A pong that reading on did not send, because there is no room to read on.
        if self.socket.has_queued()
            && let Err(reason) = self.write(cx, false)
        {
            return Poll::Ready(reason);
        }
        let ended = self.watch_the_clock(cx, heard.needs_care);
        if ended.is_ready() && self.gathering_since.is_some() {
            let _ = self.write(cx, true); // it ends all the same
        }
        ended
    }

    /// The session is about to end: the device gets of its outbox what the socket takes now.
    fn write_the_rest(&mut self, cx: &mut Context<'_>) {
        let mut turns = LAST_TURNS;
        while turns > 0
            && matches!(self.flush(cx), Ok(true))
            && matches!(
                self.socket.poll_write(cx, &self.seat),
                Poll::Ready(Ok(Written::Some))
            )
        {
            turns -= 1;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, has_downlinks: bool) -> Result<(), CloseReason> {
        // What is queued goes first: the socket may have a part of it, and nothing may come between.
        let mut is_blocked = !self.flush(cx)?;
        if has_downlinks && !is_blocked {
            match self.socket.poll_write(cx, &self.seat) {
                Poll::Ready(Ok(Written::All)) => self.seat.mark_downlink(),
                Poll::Ready(Ok(Written::Some)) => {
                    self.seat.mark_downlink();
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Err(_)) => return Err(CloseReason::Lost),
                Poll::Pending => is_blocked = true,
            }
        }
        if !is_blocked {
            is_blocked = !self.flush(cx)?;
        }
        self.note_progress(is_blocked);
        Ok(())
    }

    /// Sends what is queued beside downlinks. Returns whether nothing of it is left.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if !self.socket.has_queued() {
            return Ok(true);
        }
        let flushed = match self.is_leaving {
            true => self.socket.poll_flush(cx), // the outbox is no longer its own
            false => self.socket.poll_control(cx, &self.seat),
        };
        let Poll::Ready(flushed) = flushed else {
            return Ok(false);
        };
        flushed?;
        if let Some(acks) = &mut self.acks {
            acks.unsent = 0;
        }
        Ok(true)
    }

    /// Notes since when the socket takes nothing.
    fn note_progress(&mut self, is_blocked: bool) {
        let taken = self.socket.written_bytes();
        match self.writing {
            Writing::Flowing if !is_blocked => {}
            Writing::Stalled { written_bytes, .. } if is_blocked && written_bytes == taken => {}
            _ if is_blocked => {
                let since = Instant::now();
                self.writing = Writing::Stalled {
                    since,
                    written_bytes: taken,
                };
                self.seat.set_stalled(Some(since));
            }
            _ => {
                self.writing = Writing::Flowing;
                self.seat.set_stalled(None);
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        for _ in 0..MESSAGES_A_TURN {
            self.write_acks(cx)?;
            self.keep_pace()?;
            self.look_for_room(cx)?;
            let takes_one = match self.reading {
                _ if self.resumes_at().is_some() || self.has_many_acks() => false,
                Reading::Open => true,
                Reading::Paused { .. } => self.reserve_surplus(),
                Reading::Undecided => false,
            };
            if !takes_one {
                return self.read_ahead(cx);
            }
            let Poll::Ready(message) = self.poll_next(cx) else {
                return Ok(());
            };
            match message? {
                Next::Kept { is_text, bytes } => {
                    self.measure(bytes.len());
                    self.on_data(is_text, bytes, cx)?;
                }
                Next::Fresh(message) => self.on_message(message, cx)?,
            }
        }
        cx.waker().wake_by_ref(); // the turn of others
        Ok(())
    }

    /// Backpressure: no message is taken while the device's lane or the bridge has no room, or a hook has to decide.
    fn look_for_room(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let lanes = &self.shared.lanes;
        if self.reading == Reading::Open && !lanes.is_full() {
            return Ok(());
        }
        match lanes.poll_room(&self.seat.client_id, cx.waker()) {
            Room::Undecided => {
                self.set_reading(Reading::Undecided);
                return Ok(());
            }
            Room::Wait => self.pause(),
            Room::More | Room::NoRemote | Room::Closed if self.reading == Reading::Open => {}
            Room::More | Room::NoRemote | Room::Closed => {
                self.heartbeat.mark_alive(); // its pongs could not be read meanwhile
                self.set_reading(Reading::Open);
            }
        }
        self.tell_outcome(cx)
    }

    /// Counts what was read against the device's rates, if it has any.
    fn measure(&mut self, bytes: usize) {
        let Some(meter) = &mut self.meter else {
            return;
        };
        let was_over = meter.resumes_at().is_some();
        if meter.count(bytes, Instant::now()) && !was_over {
            self.shared.running.rates_exceeded.add(1);
            self.shared.notices.rate(self.seat.client_id.as_str());
        }
    }

    /// Nor while the device has said too much.
    fn keep_pace(&mut self) -> Result<(), CloseReason> {
        let Some(meter) = self.meter.as_mut().filter(|m| m.resumes_at().is_some()) else {
            return Ok(());
        };
        match meter.pace(Instant::now()) {
            Pace::Wait => {}
            Pace::TooMany => return Err(CloseReason::TooMany),
            Pace::Read => self.heartbeat.mark_alive(), // its pongs could not be read meanwhile
        }
        Ok(())
    }

    fn pause(&mut self) {
        if !matches!(self.reading, Reading::Paused { .. }) {
            self.shared.running.reads_paused.add(1);
            if self.shared.lanes.is_full() {
                self.shared.notices.room(self.seat.client_id.as_str());
            }
            let since = Instant::now();
            self.set_reading(Reading::Paused { since });
        }
    }

    fn set_reading(&mut self, reading: Reading) {
        let was_paused = matches!(self.reading, Reading::Paused { .. });
        if was_paused && !matches!(reading, Reading::Paused { .. }) {
            self.socket.set_user_timeout(None);
        }
        self.reading = reading;
    }

    fn on_message(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.heartbeat.mark_alive();
        if !message.is_pong() {
            self.measure(message.len()); // a pong is what we asked for
        }
        match message {
            Message::Text(text) if self.acks.is_some() => self.on_data(true, text.into(), cx),
            Message::Text(text) => {
                let text = self.compact(text.into());
                self.on_data(true, text, cx)
            }
            Message::Binary(bytes) => {
                let bytes = self.compact(bytes);
                self.on_data(false, bytes, cx)
            }
            Message::Ping(_) => Ok(()), // its pong is queued
            Message::Pong(payload) => {
                if !payload.is_empty() && self.seat.pong(&payload) {
                    return self.follow_up_kept(cx);
                }
                // One a ping: a device may send others as it likes, and would fill the log.
                if let Some(took) = self.heartbeat.pong(Instant::now()) {
                    self.shared.running.ping.observe(took);
                    self.seat.mark_pong(took);
                    tracing::trace!(name: "pong", target: "fastsock::messages", client_id = %self.seat.client_id, session_id = self.seat.session_id.0, "Pong from client");
                }
                Ok(())
            }
            Message::Close(_) | Message::Frame(_) => Ok(()), // never given out by the socket
        }
    }

    /// Small payloads are copied out of the read buffer they are a slice of; a held one would keep the whole buffer alive.
    fn compact(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < COPY_BELOW_BYTES && !self.socket.is_compact() {
            Bytes::copy_from_slice(&bytes)
        } else {
            bytes
        }
    }

    /// A message that was read, now or ahead of its time.
    fn on_data(
        &mut self,
        is_text: bool,
        bytes: Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        match (is_text, self.acks.is_some()) {
            (true, true) => self.on_envelope(&bytes, cx),
            (false, true) => Err(CloseReason::Protocol),
            (true, false) => self.on_uplink(Payload::checked_text(bytes), None),
            (false, false) => self.on_uplink(Payload::binary(bytes), None),
        }
    }

    fn on_uplink(
        &mut self,
        payload: Payload,
        named: Option<(Uuid, Pledge)>,
    ) -> Result<(), CloseReason> {
        self.seq += 1;
        let mut uplink = Uplink::new(
            self.seat.client_id.clone(),
            self.seat.session_id,
            self.seq,
            payload,
        );
        uplink.epoch = self.seat.epoch();
        uplink.context = self.seat.context().cloned();
        self.mark_seen(uplink.received_at);
        let tracer = &self.shared.status.tracer;
        tracer.tell(self.seat.client_id.as_str(), |with_payload| {
            Traced::Uplink {
                session_id: uplink.session_id.0,
                seq: uplink.seq,
                message: TracedMessage::of(&uplink.payload, with_payload),
            }
        });
        let pledge = named.map(|(key, pledge)| {
            uplink.id = key;
            pledge
        });
        if self.shared.registry.calls().has_waiting() {
            self.seat.offer_answer(&uplink.payload);
        }
        let announced = self.announced();
        if !self.shared.config.has_remote() && !self.shared.status.has_hooks() {
            self.tell_of_no_remote(&uplink);
        }
        match self.shared.decisions.take(uplink, pledge, announced) {
            Room::More | Room::NoRemote | Room::Closed => Ok(()),
            Room::Wait => {
                self.pause();
                Ok(())
            }
            Room::Undecided => {
                self.set_reading(Reading::Undecided);
                Ok(())
            }
        }
    }

    /// The device said something. Once it has left its seat it is no more in the hash, and stays out of it.
    fn mark_seen(&self, now: SystemTime) {
        let ms = self.seat.mark_uplink(now);
        if !self.is_leaving {
            self.shared.broker.seen(&self.seat.client_id, ms);
        }
    }

    /// What the first uplink has to wait for: a backend that looks the device up in the hash must find it there.
    fn announced(&mut self) -> Option<BoxFuture<'static, ()>> {
        let is_awaited = self.seq == 1 && !self.is_leaving && self.shared.config.has_remote();
        is_awaited.then(|| self.shared.broker.announced(&self.seat.client_id))?
    }

    fn tell_of_no_remote(&self, uplink: &Uplink) {
        let (client_id, session_id, data) = (
            &uplink.client_id,
            uplink.session_id.0,
            uplink.payload.to_text(),
        );
        if uplink.seq > 1 {
            tracing::debug!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        } else {
            tracing::warn!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        }
    }
}

const COPY_BELOW_BYTES: usize = 4 << 10;
/// Messages read before other sessions get their turn.
const MESSAGES_A_TURN: usize = 64;
/// How often what waits is written on when the session is told to go.
const LAST_TURNS: usize = 64;
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 3600);

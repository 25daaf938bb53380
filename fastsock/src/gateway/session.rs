//! One device on one task: its socket, its heartbeat, its downlinks out and its uplinks in.

mod waiting;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use self::waiting::Next;
use crate::{
    gateway::{
        limits::Permits,
        shared::Shared,
        socket::{Socket, Written},
    },
    net::linger::linger,
    pure::{
        ahead::Ahead,
        envelope::{self, Envelope},
        heartbeat::{Beat, Heartbeat},
        limits::{Meter, Pace},
        receipts::{self, Offer, Outcome, Pledge, Receipt},
    },
    registry::seat::Seat,
    tasks::BoxFuture,
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
    /// Since when the socket takes nothing of what is to be written, and how much it had taken by then.
    stalled: Option<(Instant, u64)>,
    /// Since when it is not read, because its lane has no room.
    paused: Option<Instant>,
    /// What it has read while its messages waited.
    ahead: Option<Box<Ahead>>,
    /// It has not looked yet whether there is room: the lane of its device may be full from before.
    is_new: bool,
    /// Its rates, if they are limited.
    meter: Option<Box<Meter>>,
    /// It is not read, because a hook has not answered about the last uplink.
    is_undecided: bool,
    /// A control frame waits to be flushed, or what TLS holds.
    has_control: bool,
    was_told_of_no_remote: bool,
    /// Its first uplink was held until the hash has the device, or need not be.
    is_announced: bool,
    /// It speaks `fastsock.v1.ack`.
    acks: Option<Box<Acks>>,
    /// Given back at the end.
    permits: Permits,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        seat: Arc<Seat>,
        socket: Socket,
        permits: Permits,
    ) -> Self {
        let now = Instant::now();
        let interval = shared.config.websocket_ping_interval;
        let heartbeat = Heartbeat::new(interval, now, fastrand::f64(), shared.started);
        let timer = Box::pin(sleep_until(
            heartbeat.deadline().unwrap_or_else(|| now + FAR_FUTURE),
        ));
        let meter = Meter::new(&shared.config, now);
        Self {
            shared,
            seat,
            socket,
            heartbeat,
            timer,
            seq: 0,
            stalled: None,
            paused: None,
            ahead: None,
            is_new: true,
            meter,
            is_undecided: false,
            has_control: false,
            was_told_of_no_remote: false,
            is_announced: false,
            acks: None,
            permits,
        }
    }

    /// The device speaks `fastsock.v1.ack`.
    pub(crate) fn acknowledge(&mut self) {
        self.socket.use_envelopes();
        self.acks = Some(Box::default());
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
        if let Err(reason) = self.write(cx, heard.has_downlinks) {
            return Poll::Ready(heard.close.unwrap_or(reason));
        }
        if let Some(reason) = heard.close {
            return Poll::Ready(reason);
        }
        if let Err(reason) = self.read(cx) {
            return Poll::Ready(reason);
        }
        // A pong that reading on did not send, because there is no room to read on.
        if self.has_control
            && let Err(reason) = self.write(cx, false)
        {
            return Poll::Ready(reason);
        }
        self.watch_the_clock(cx, heard.needs_care)
    }

    fn write(&mut self, cx: &mut Context<'_>, has_downlinks: bool) -> Result<(), CloseReason> {
        // What is queued goes first: the socket may have a part of it, and nothing may come between.
        let mut is_blocked = self.has_control && self.is_flush_pending(cx)?;
        if has_downlinks && !is_blocked {
            match self.socket.poll_write(cx, &self.seat) {
                Poll::Ready(Ok(Written::All)) => {}
                Poll::Ready(Ok(Written::Some)) => cx.waker().wake_by_ref(),
                Poll::Ready(Err(_)) => return Err(CloseReason::Lost),
                Poll::Pending => is_blocked = true,
            }
        }
        self.has_control |= self.socket.has_unsent();
        if self.has_control && !is_blocked {
            is_blocked = self.is_flush_pending(cx)?;
        }
        let taken = self.socket.written_bytes();
        if !is_blocked {
            if self.stalled.take().is_some() {
                self.seat.set_stalled(None);
            }
        } else if self.stalled.is_none_or(|(_, before)| before != taken) {
            let now = Instant::now();
            self.stalled = Some((now, taken));
            self.seat.set_stalled(Some(now));
        }
        Ok(())
    }

    fn is_flush_pending(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Poll::Ready(flushed) = self.socket.poll_control(cx, &self.seat) else {
            return Ok(true);
        };
        flushed?;
        self.has_control = false;
        if let Some(acks) = &mut self.acks {
            acks.unsent = 0;
        }
        Ok(false)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        for _ in 0..MESSAGES_A_TURN {
            if !self.may_read(cx)? {
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

    /// Backpressure: no message is taken while the device's lane or the bridge has no room, a hook has to decide, or the device
    /// has said too much.
    fn may_read(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.is_over_its_rates()? || self.has_too_many_unsent(cx)? {
            return Ok(false);
        }
        let lanes = &self.shared.lanes;
        let is_full = match std::mem::take(&mut self.is_new) {
            true => lanes.room(&self.seat.client_id) == Room::Wait,
            false => lanes.is_full(),
        };
        if self.paused.is_none() && !self.is_undecided && !is_full {
            return Ok(true);
        }
        let room = lanes.poll_room(&self.seat.client_id, cx.waker());
        let was_undecided = std::mem::replace(&mut self.is_undecided, room == Room::Undecided);
        match room {
            Room::Close => return Err(CloseReason::TryAgainLater),
            Room::Undecided => {}
            Room::Wait => self.pause(),
            Room::More | Room::NoRemote => {
                let paused = self.paused.take();
                if was_undecided || paused.is_some() {
                    self.heartbeat.mark_alive(); // its pongs could not be read meanwhile
                }
                if paused.is_some() {
                    self.socket.set_user_timeout(None);
                }
            }
        }
        if room != Room::Undecided {
            self.tell_outcome(cx)?;
        }
        Ok(match room {
            Room::More | Room::NoRemote => true,
            Room::Wait => self.may_exceed(),
            Room::Undecided | Room::Close => false,
        })
    }

    fn has_too_many_unsent(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let has_many =
            |acks: &Option<Box<Acks>>| acks.as_ref().is_some_and(|a| a.unsent >= UNSENT_MAX);
        if has_many(&self.acks) {
            self.write(cx, false)?; // pending, it wakes the task
        }
        Ok(has_many(&self.acks))
    }

    /// Counts what was read against the device's rates, if it has any.
    fn measure(&mut self, bytes: usize) {
        let Some(meter) = &mut self.meter else {
            return;
        };
        let was_over = meter.resumes_at().is_some();
        if meter.count(bytes, Instant::now()) && !was_over {
            self.shared.running.rates_exceeded.add(1);
        }
    }

    fn is_over_its_rates(&mut self) -> Result<bool, CloseReason> {
        let Some(meter) = self.meter.as_mut().filter(|m| m.resumes_at().is_some()) else {
            return Ok(false);
        };
        match meter.pace(Instant::now()) {
            Pace::Wait => Ok(true),
            Pace::TooMany => Err(CloseReason::TooMany),
            Pace::Read => {
                self.heartbeat.mark_alive(); // its pongs could not be read meanwhile
                Ok(false)
            }
        }
    }

    /// When a device that has said too much is read again.
    fn resumes_at(&self) -> Option<Instant> {
        self.meter.as_ref().and_then(|meter| meter.resumes_at())
    }

    fn pause(&mut self) {
        if self.paused.is_none() {
            self.shared.running.reads_paused.add(1);
            self.paused = Some(Instant::now());
        }
    }

    fn on_message(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.heartbeat.mark_alive();
        if !message.is_pong() {
            self.measure(message.len()); // a pong is what we asked for
        }
        match message {
            Message::Text(text) if self.acks.is_some() => self.on_data(true, text.into(), cx),
            Message::Text(text) => self.on_data(true, compact(text.into()), cx),
            Message::Binary(bytes) => self.on_data(false, compact(bytes), cx),
            Message::Ping(_) => {
                self.has_control = true; // tungstenite has queued the pong
                Ok(())
            }
            Message::Pong(_) => {
                tracing::trace!(name: "pong", target: "fastsock::messages", client_id = %self.seat.client_id, session_id = self.seat.session_id.0, "Pong from client");
                Ok(())
            }
            Message::Close(_) | Message::Frame(_) => Ok(()), // never given out by the socket
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

    /// An uplink that its device waits to hear of, or one it has sent before.
    fn on_envelope(&mut self, message: &[u8], cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Envelope { id, payload } = envelope::open(message).ok_or(CloseReason::Protocol)?;
        let client_id = self.seat.client_id.clone();
        let offer = self.shared.receipts.offer(&client_id, &id, Instant::now());
        let (receipt, taken) = match offer {
            Offer::New(receipt, pledge) => {
                let key = receipts::key(&client_id, &id);
                (receipt, self.on_uplink(payload, Some((key, pledge))))
            }
            Offer::Again(receipt) => {
                self.shared.running.uplinks_repeated.add(1);
                let now = SystemTime::now();
                self.shared
                    .broker
                    .seen(&client_id, self.seat.mark_seen(now));
                self.is_undecided |= receipt.outcome() == Outcome::Open;
                (receipt, Ok(()))
            }
        };
        if let Some(acks) = &mut self.acks {
            acks.awaited = Some((id, receipt));
        }
        self.tell_outcome(cx)?; // also if the device is closed for it
        taken
    }

    /// Tells the device what became of its last uplink, once that is known.
    fn tell_outcome(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Some(acks) = &mut self.acks else {
            return Ok(());
        };
        let Some((id, receipt)) = &acks.awaited else {
            return Ok(());
        };
        let text = match receipt.outcome() {
            Outcome::Open => return Ok(()),
            Outcome::Taken => envelope::ack(id),
            Outcome::Lost(reason) => envelope::nack(id, reason),
        };
        acks.awaited = None;
        acks.unsent += 1;
        self.has_control = true;
        self.socket.text(cx, text)
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
        self.shared.broker.seen(
            &self.seat.client_id,
            self.seat.mark_seen(uplink.received_at),
        );
        let pledge = named.map(|(key, pledge)| {
            uplink.id = key;
            pledge
        });
        let announced = self.announced();
        if self.shared.config.remote_url.is_none() && !self.shared.status.has_hooks() {
            self.tell_of_no_remote(&uplink);
        }
        match self.shared.decisions.take(uplink, pledge, announced) {
            Room::More | Room::NoRemote => Ok(()),
            Room::Wait => {
                self.pause();
                Ok(())
            }
            Room::Undecided => {
                self.is_undecided = true;
                Ok(())
            }
            Room::Close => Err(CloseReason::TryAgainLater),
        }
    }

    /// What the first uplink has to wait for: a backend that looks the device up in the hash must find it there.
    fn announced(&mut self) -> Option<BoxFuture<'static, ()>> {
        if std::mem::replace(&mut self.is_announced, true) {
            return None;
        }
        let is_forwarded = self.shared.config.remote_url.is_some();
        is_forwarded.then(|| self.shared.broker.announced(&self.seat.client_id))?
    }

    fn tell_of_no_remote(&mut self, uplink: &Uplink) {
        let (client_id, session_id, data) = (
            &uplink.client_id,
            uplink.session_id.0,
            uplink.payload.to_text(),
        );
        if std::mem::replace(&mut self.was_told_of_no_remote, true) {
            tracing::debug!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        } else {
            tracing::warn!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        }
    }

    /// Acts on what is due, and sleeps until the next of it.
    fn watch_the_clock(&mut self, cx: &mut Context<'_>, needs_care: bool) -> Poll<CloseReason> {
        loop {
            let care_at = if needs_care { self.look_after() } else { None };
            let deadline = self.deadline(care_at);
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self
                .stalled
                .is_some_and(|(since, _)| now >= since + self.shared.config.write_timeout)
            {
                return Poll::Ready(CloseReason::SlowConsumer);
            }
            if let Some(since) = self.paused.filter(|since| now >= *since + PAUSED_MAX) {
                if self.shared.lanes.was_destination_up(since)
                    && self.shared.lanes.is_lane_full(&self.seat.client_id)
                {
                    return Poll::Ready(CloseReason::TryAgainLater);
                }
                self.paused = Some(now); // the destination was down: that is not the device's doing
            }
            if self.expiry().is_some_and(|expiry| now >= expiry) {
                return Poll::Ready(CloseReason::TokenExpired);
            }
            let resumes_at = self.resumes_at();
            if resumes_at.is_some_and(|at| now >= at) {
                cx.waker().wake_by_ref(); // the next turn reads
                return Poll::Pending;
            }
            match self.heartbeat.tick(now) {
                Beat::Wait => {}
                // While it is not read, the kernel watches over it instead (TCP_USER_TIMEOUT).
                Beat::GiveUp
                    if self.paused.is_none() && !self.is_undecided && resumes_at.is_none() =>
                {
                    return Poll::Ready(CloseReason::NoLife);
                }
                Beat::GiveUp => self.heartbeat.mark_alive(),
                Beat::Ping => {
                    if self.paused.is_some() {
                        self.socket.set_user_timeout(Some(PAUSED_USER_TIMEOUT));
                    }
                    if let Err(reason) = self.socket.ping(cx) {
                        return Poll::Ready(reason);
                    }
                    self.has_control = true;
                    if let Err(reason) = self.write(cx, false) {
                        return Poll::Ready(reason);
                    }
                }
            }
        }
    }

    /// Looks after a seat that has lost downlinks, or holds more than its share. Returns when to do that again.
    #[cold]
    fn look_after(&self) -> Option<Instant> {
        let (lines, next) = self.seat.look_after(Instant::now());
        self.seat.tell_losses(lines, None);
        next
    }

    /// When the clock is to be looked at next.
    fn deadline(&self, care_at: Option<Instant>) -> Instant {
        let stall = self
            .stalled
            .map(|(since, _)| since + self.shared.config.write_timeout);
        let pause = self.paused.map(|since| since + PAUSED_MAX);
        let (resume, expiry) = (self.resumes_at(), self.expiry());
        let beat = self.heartbeat.deadline();
        [beat, stall, pause, resume, expiry, care_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| self.far_future())
    }

    /// When what it was let in on runs out.
    fn expiry(&self) -> Option<Instant> {
        self.seat.grant()?.until
    }

    /// Nothing is due. Keeps what the timer has if that is far enough, so that it is not set anew each turn.
    fn far_future(&self) -> Instant {
        let (set, now) = (self.timer.deadline(), Instant::now());
        if set > now + FAR_FUTURE / 2 {
            set
        } else {
            now + FAR_FUTURE
        }
    }

    /// Leaves the seat, closes the socket as the reason demands, and tells the world last.
    async fn end(self, reason: CloseReason) {
        self.shared.announcements.leave(&self.seat, &reason);
        let shared = self.shared.clone();
        tokio::select! {
            biased; // the close frame gets its chance when the time is over already, too
            () = self.hang_up(&reason) => {}
            () = shared.sessions.stopping() => {}
        }
    }

    /// Says why, and waits until the device has heard it; at most `close_timeout`.
    async fn hang_up(mut self, reason: &CloseReason) {
        let deadline = Instant::now() + self.shared.config.close_timeout;
        let is_clean = timeout_at(deadline, self.say_goodbye(reason))
            .await
            .unwrap_or(false);
        if is_clean && let Ok(Ok(stream)) = timeout_at(deadline, self.socket.end()).await {
            linger(stream, deadline, &self.shared.limits.lingering).await;
        }
        drop(self.permits);
    }

    /// Sends the close frame, or the answer to the device's. `false` when there is nobody to hear it.
    async fn say_goodbye(&mut self, reason: &CloseReason) -> bool {
        let said = match reason {
            CloseReason::Lost | CloseReason::NoLife => false,
            CloseReason::ByDevice(code) => {
                let code = *code;
                poll_fn(|cx| Poll::Ready(self.socket.answer_close(cx, code)))
                    .await
                    .is_ok()
            }
            reason => {
                let code = reason.code().unwrap_or(1000);
                poll_fn(|cx| Poll::Ready(self.socket.close(cx, code, reason.as_str())))
                    .await
                    .is_ok()
            }
        };
        said && poll_fn(|cx| self.socket.poll_flush(cx)).await.is_ok()
    }
}

/// What a device that speaks `fastsock.v1.ack` waits for.
#[derive(Default)]
struct Acks {
    /// Its last uplink, until it is told what became of it. It is read no further meanwhile.
    awaited: Option<(String, Receipt)>,
    /// So many answers wait for the socket.
    unsent: usize,
}

/// Small payloads are copied out of the read buffer they are a slice of; a held one would keep the whole buffer alive.
fn compact(bytes: Bytes) -> Bytes {
    if bytes.len() < COPY_BELOW_BYTES {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

const COPY_BELOW_BYTES: usize = 4 << 10;
/// Messages read before other sessions get their turn.
const MESSAGES_A_TURN: usize = 64;
/// A device that does not read the answers to so many of its uplinks is not read either.
const UNSENT_MAX: usize = 64;
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A lane that stays full this long while the destination is up closes its device with 1013.
const PAUSED_MAX: Duration = Duration::from_secs(30);
const PAUSED_USER_TIMEOUT: Duration = Duration::from_secs(60);

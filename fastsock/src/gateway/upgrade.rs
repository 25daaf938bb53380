//! From a connection that was let in to a session in its seat: whether it may connect, takeover, 101.

use std::{future::Future, io, sync::Arc, time::SystemTime};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    limits::Permits,
    request::{HandshakeError, Source, read_head, secure},
    session::Session,
    shared::Shared,
    socket::Socket,
};
use crate::{
    auth::Principal,
    config::origin::Origin,
    hooks::Admission,
    net::{linger::linger, wire::Wire},
    pure::handshake::{self, Extra, Upgrade},
    registry::{Seating, seat::Seat},
    remote_addr::RemoteAddr,
    types::{CloseReason, Refusal},
};

/// Begins the handshake of a connection, if the limits allow it. Whom a limit turns away is answered unheard: reading a head
/// from everybody is what there is no room for.
pub(super) fn begin(shared: &Arc<Shared>, stream: TcpStream, addr: RemoteAddr) {
    let handshake = Handshake {
        shared: shared.clone(),
        source: Source::new(addr),
    };
    match shared.limits.acquire(addr.ip()) {
        Ok((permits, turn)) => {
            let task = handshake.run(stream, permits, turn);
            shared.gateway.spawn_until_stopped(task);
        }
        Err(refusal) => shared.gateway.spawn_until_stopped(async move {
            let lingering = &handshake.shared.limits.lingering_when_full;
            handshake
                .refuse_with(stream.into(), &refusal, Extra::default(), lingering)
                .await;
        }),
    }
}

/// One handshake.
struct Handshake {
    shared: Arc<Shared>,
    source: Source,
}

impl Handshake {
    async fn run(
        mut self,
        mut stream: TcpStream,
        mut permits: Permits,
        turn: Option<OwnedSemaphorePermit>,
    ) {
        let shared = self.shared.clone();
        let deadline = Instant::now() + shared.config.limit_handshake_time;
        let proxied = self
            .source
            .read_proxy_header(&shared, &mut stream, &mut permits);
        let (mut wire, name) = match in_time(deadline, proxied).await {
            Ok(()) => match timeout_at(deadline, secure(&shared, &self.source, stream)).await {
                Ok(Some(secured)) => secured,
                Ok(None) | Err(_) => return shared.counts.abandoned(),
            },
            Err(HandshakeError::Refused(refusal, extra)) => {
                drop(turn);
                return self.refuse(stream.into(), &refusal, extra).await;
            }
            Err(HandshakeError::Abandoned) => return shared.counts.abandoned(),
        };
        let head = read_head(&shared.config, &self.source, &mut wire, name);
        let seated = match in_time(deadline, head).await {
            Ok((mut upgrade, rest)) => self
                .seat(&mut upgrade, &mut permits)
                .await
                .map(|seating| (upgrade, rest, seating)),
            Err(error) => Err(error),
        };
        drop(turn);
        match seated {
            Ok((upgrade, rest, Some(seat))) => {
                self.open(wire, &upgrade, rest, seat, permits).await;
            }
            Ok((upgrade, rest, None)) => self.close_at_once(wire, &upgrade, rest).await,
            Err(HandshakeError::Refused(refusal, extra)) => {
                self.refuse(wire, &refusal, extra).await;
            }
            Err(HandshakeError::Abandoned) => shared.counts.abandoned(),
        }
    }

    /// Admits the device and gives it its seat; `None` when its id is being fought over.
    async fn seat(
        &mut self,
        upgrade: &mut Upgrade,
        permits: &mut Permits,
    ) -> Result<Option<Arc<Seat>>, HandshakeError> {
        if self.shared.config.ack {
            upgrade.choose_ack();
        }
        self.check_origin(upgrade)?;
        self.source.take_forwarded(&self.shared, upgrade, permits)?;
        let principal = self.authenticate(upgrade).await?;
        let next = || self.shared.session_id();
        let seat =
            match self
                .shared
                .registry
                .seat(principal, next, self.source.addr, Instant::now())
            {
                Seating::Seated(seat, is_takeover) => {
                    self.shared.running.takeovers.add(is_takeover.into());
                    seat
                }
                Seating::Taken => {
                    return Err(Refusal::new(409, "this client id is connected already").into());
                }
                Seating::TooMany => return Ok(None),
                Seating::Stopping => {
                    return Err(Refusal::new(503, "shutting down")
                        .with_retry_after(1)
                        .into());
                }
            };
        if !self.shared.auth.holds(&seat.client_id, seat.grant()) {
            seat.close(CloseReason::Forbidden); // withdrawn meanwhile
        }
        let guard = Unseat {
            shared: &self.shared,
            seat: &seat,
        };
        self.shared
            .broker
            .seated(&seat.client_id, seat.session_id)
            .await;
        std::mem::forget(guard); // from here on `open` answers for the seat
        Ok(Some(seat))
    }

    /// Refuses a page that is not listed; where a certificate decides and none is listed, one of another host than this.
    fn check_origin(&self, upgrade: &Upgrade) -> Result<(), HandshakeError> {
        let allowed = &self.shared.origins;
        let credentials = &upgrade.request.credentials;
        if allowed.is_empty() && !self.shared.auth.is_by_certificate(credentials) {
            return Ok(());
        }
        let mut origins = upgrade.fields("origin");
        let Some(origin) = origins.next() else {
            return Ok(());
        };
        if origins.next().is_some() {
            return Err(Refusal::new(400, "there are two Origin headers").into());
        }
        let is_allowed = if allowed.is_empty() {
            upgrade.is_own_origin(origin)
        } else {
            Origin::parse(origin).is_ok_and(|o| allowed.iter().any(|a| a.allows(&o)))
        };
        if !is_allowed {
            return Err(Refusal::new(403, "this origin is not allowed").into());
        }
        Ok(())
    }

    /// The host's hook decides, or else what is configured.
    async fn authenticate(&self, upgrade: &Upgrade) -> Result<Principal, HandshakeError> {
        let admission = if self.shared.status.has_hooks() {
            if let Some(fault) = upgrade.request.credentials.faults.headers {
                return Err(Refusal::new(400, fault).into()); // a hook would take it for none
            }
            self.shared.decisions.admission(&upgrade.request).await
        } else {
            Some(Admission::AsConfigured)
        };
        match admission {
            Some(Admission::Accept(client_id)) => Ok(client_id.into()),
            Some(Admission::Reject(refusal)) => Err(refusal.into()),
            Some(Admission::AsConfigured) => {
                let principal = self.shared.auth.authenticate(&upgrade.request).await;
                principal.map_err(|(refusal, header)| {
                    let without_body = false;
                    HandshakeError::Refused(
                        refusal,
                        Extra {
                            header,
                            without_body,
                        },
                    )
                })
            }
            None => Err(Refusal::new(503, "the authentication failed")
                .with_retry_after(1)
                .into()),
        }
    }

    /// Writes the 101 and hands the connection to its session.
    async fn open(
        self,
        mut wire: Wire,
        upgrade: &Upgrade,
        rest: Vec<u8>,
        seat: Arc<Seat>,
        permits: Permits,
    ) {
        let guard = Unseat {
            shared: &self.shared,
            seat: &seat,
        };
        let deadline = Instant::now() + self.shared.config.write_timeout;
        if !matches!(
            timeout_at(deadline, write(&mut wire, &upgrade.answer())).await,
            Ok(Ok(()))
        ) {
            return self.shared.counts.abandoned(); // the guard empties the seat
        }
        std::mem::forget(guard); // from here on the session answers for the seat
        self.shared.announcements.connected(&seat);
        self.shared
            .broker
            .seen(&seat.client_id, seat.mark_seen(SystemTime::now()));
        let socket = Socket::new(wire, rest, self.shared.config.limit_message_bytes);
        // A fresh task: this one has grown with the handshake.
        let mut session = Session::new(self.shared.clone(), seat, socket, permits);
        if upgrade.speaks_ack() {
            session.acknowledge();
        }
        self.shared.sessions.spawn_inline(session.run());
    }

    /// The id changes hands too often: the device gets its 101 and is told so, since a refusal would not reach it as a code.
    async fn close_at_once(self, mut wire: Wire, upgrade: &Upgrade, rest: Vec<u8>) {
        self.shared.counts.closed(&CloseReason::TooMany);
        let deadline = Instant::now() + self.shared.config.close_timeout;
        let told = async {
            write(&mut wire, &upgrade.answer()).await?;
            let mut socket = Socket::new(wire, rest, self.shared.config.limit_message_bytes);
            let _ = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(socket.close(cx, 4429, CloseReason::TooMany.as_str()))
            })
            .await;
            let _ = std::future::poll_fn(|cx| socket.poll_flush(cx)).await;
            socket.end().await
        };
        if let Ok(Ok(stream)) = timeout_at(deadline, told).await {
            linger(stream, deadline, &self.shared.limits.lingering).await;
        }
    }

    async fn refuse(&self, wire: Wire, refusal: &Refusal, extra: Extra) {
        let lingering = &self.shared.limits.lingering;
        self.refuse_with(wire, refusal, extra, lingering).await;
    }

    async fn refuse_with(
        &self,
        mut wire: Wire,
        refusal: &Refusal,
        extra: Extra,
        lingering: &Semaphore,
    ) {
        self.shared.counts.refused(refusal.status);
        tracing::debug!(remote_addr = %self.source.addr, status = refusal.status, reason = %refusal.reason, "Handshake refused");
        #[cfg(feature = "tls")]
        if self.shared.tls.is_some() && wire.is_plain() {
            return; // before TLS there is no way to tell, and TLS costs what there is too little of
        }
        let deadline = Instant::now() + self.shared.config.close_timeout;
        let told = async {
            write(&mut wire, &handshake::refusal(refusal, extra)).await?;
            wire.end().await
        };
        if let Ok(Ok(stream)) = timeout_at(deadline, told).await {
            linger(stream, deadline, lingering).await;
        }
    }
}

/// Writes all bytes, through TLS too.
async fn write(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.write_all(bytes).await?;
    wire.flush().await
}

/// Empties a seat whose device got no 101, however its handshake broke off.
struct Unseat<'a> {
    shared: &'a Shared,
    seat: &'a Seat,
}

impl Drop for Unseat<'_> {
    fn drop(&mut self) {
        self.shared
            .announcements
            .leave(self.seat, &CloseReason::Lost);
    }
}

/// What comes in time; else nobody is there any more.
async fn in_time<T>(
    deadline: Instant,
    wait: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let waited = timeout_at(deadline, wait).await;
    waited.unwrap_or(Err(HandshakeError::Abandoned))
}

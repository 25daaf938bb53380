//! From a connection that was let in to a session in its seat: whether it may connect, takeover, 101.

use std::{future::Future, io, sync::Arc, time::SystemTime};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    limits::Permits,
    request::{HandshakeError, Source, read_head, secure},
    routes::Route,
    session::Session,
    shared::Shared,
    socket::Socket,
};
use crate::{
    auth::{Auth, Principal, Profile},
    broker::Claimed,
    config::{SubprotocolMismatch, origin::Origin},
    context::Context,
    hooks::Admission,
    net::{linger::linger, wire::Wire},
    pure::{
        handshake::{self, Extra, Upgrade},
        kept::Form,
        limits::CapacityPermit,
    },
    registry::{
        Seating,
        seat::{Occupant, Seat},
    },
    remote_addr::RemoteAddr,
    trace::Traced,
    trace_context::TraceContext,
    types::{ClientId, CloseReason, Refusal},
};

/// Begins the handshake of a connection, if the limits allow it. Whom a limit turns away is answered unheard: reading a head
/// from everybody is what there is no room for.
pub(super) fn begin(shared: &Arc<Shared>, stream: TcpStream, addr: RemoteAddr) {
    let handshake = Handshake {
        shared: shared.clone(),
        source: Source::new(addr),
        claimed: None,
        route: None,
    };
    match shared.limits.acquire(addr.ip()) {
        Ok((permits, turn)) => {
            let task = handshake.run(stream, permits, turn);
            shared.gateway.spawn_until_stopped(task);
        }
        Err(refusal) => shared.gateway.spawn_until_stopped(async move {
            let notices = &handshake.shared.notices;
            notices.limit(&refusal.reason, handshake.source.addr);
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
    /// Whom the device says it is, once that is known: for whoever follows that device.
    claimed: Option<ClientId>,
    /// The name of the route that it goes, unless that is the default one.
    route: Option<String>,
}

impl Handshake {
    async fn run(mut self, mut stream: TcpStream, mut permits: Permits, turn: CapacityPermit) {
        let shared = self.shared.clone();
        let deadline = Instant::now() + shared.config.limits.handshake_time;
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
                .seat(&mut upgrade, &mut permits, &wire)
                .await
                .map(|seating| (upgrade, rest, seating)),
            Err(error) => Err(error),
        };
        drop(turn);
        match seated {
            Ok((upgrade, rest, Ok(seat))) => {
                self.open(wire, &upgrade, rest, seat, permits).await;
            }
            Ok((upgrade, rest, Err(reason))) => {
                self.close_at_once(wire, &upgrade, rest, &reason).await;
            }
            Err(HandshakeError::Refused(refusal, extra)) => {
                self.refuse(wire, &refusal, extra).await;
            }
            Err(HandshakeError::Abandoned) => shared.counts.abandoned(),
        }
    }

    /// Admits the device and gives it its seat; or the reason why it is closed once it has its 101.
    async fn seat(
        &mut self,
        upgrade: &mut Upgrade,
        permits: &mut Permits,
        wire: &Wire,
    ) -> Result<Result<Arc<Seat>, CloseReason>, HandshakeError> {
        let shared = self.shared.clone();
        let route = Self::find_route(&shared, upgrade)?;
        self.route = route.name.clone();
        self.claimed = claim(route, upgrade);
        let devices = &self.shared.config.devices;
        if self.shared.config.ack.on {
            upgrade.choose_ack();
        }
        if devices.deflate {
            upgrade.choose_deflate();
        }
        let mut is_understood = match &route.subprotocol {
            Some(name) => upgrade.choose_of(std::slice::from_ref(name)),
            None => upgrade.choose_of(&devices.subprotocols),
        };
        // Whoever is asked may know another that the device offers.
        let is_known = !shared.status.has_hooks() && !route.auth.chooses_subprotocols();
        if !is_understood && is_known && devices.mismatch == SubprotocolMismatch::Refuse {
            return Err(Refusal::new(400, NO_SUBPROTOCOL).into());
        }
        self.check_origin(route, upgrade)?;
        self.source.take_forwarded(&self.shared, upgrade, permits)?;
        let Principal {
            client_id,
            mut grant,
            profile,
        } = self.authenticate(route, upgrade).await?;
        self.claimed = Some(client_id.clone());
        if let Some(grant) = &mut grant {
            grant.auth = route.auth_number;
        }
        if shared.routes.is_of_another(route, &client_id) {
            let why = "this client id is for devices of another route";
            return Err(Refusal::new(403, why).into());
        }
        if let Some(url) = &route.url
            && let Some(why) = url.refuses(client_id.as_str(), &upgrade.request.parts)
        {
            return Err(Refusal::new(400, why).into());
        }
        if let Some(wanted) = profile.as_ref().and_then(|p| p.subprotocol.as_ref()) {
            is_understood = upgrade.choose_of(std::slice::from_ref(wanted));
        }
        if !is_understood {
            match devices.mismatch {
                SubprotocolMismatch::Accept => {}
                SubprotocolMismatch::Close => return Ok(Err(CloseReason::Protocol)),
                SubprotocolMismatch::Refuse => {
                    return Err(Refusal::new(400, NO_SUBPROTOCOL).into());
                }
            }
        }
        // It was tired of waiting, and may be at another gateway by now: its seat there is not to be taken from it.
        if self.shared.broker.has_company() && wire.is_peer_gone() {
            return Err(HandshakeError::Abandoned);
        }
        let occupant = Occupant {
            client_id,
            grant,
            context: context(route, upgrade, profile),
        };
        let next = || self.shared.session_id();
        let (seat, is_takeover) =
            match self
                .shared
                .registry
                .seat(occupant, next, self.source.addr, Instant::now())
            {
                Seating::Seated(seat, is_takeover) => {
                    self.shared.running.takeovers.add(is_takeover.into());
                    (seat, is_takeover)
                }
                Seating::Taken => return Err(taken()),
                Seating::TooMany => return Ok(Err(self.fights())),
                Seating::Stopping => {
                    return Err(Refusal::new(503, "shutting down")
                        .with_retry_after(1)
                        .into());
                }
            };
        if !route.auth.holds(&seat.client_id, seat.grant()) {
            seat.close(CloseReason::Forbidden); // withdrawn meanwhile
        }
        let guard = Unseat {
            shared: &self.shared,
            seat: &seat,
        };
        let claimed = self
            .shared
            .broker
            .seated(&seat.client_id, seat.session_id, is_takeover);
        match claimed.await {
            Claimed::Won(epoch) => seat.set_epoch(epoch),
            Claimed::Taken => return Err(taken()),
            Claimed::TooMany => return Ok(Err(self.fights())),
        }
        if let Some(groups) = self.shared.registry.groups() {
            groups.heard(&seat.client_id).await;
        }
        std::mem::forget(guard); // from here on `open` answers for the seat
        Ok(Ok(seat))
    }

    /// Says that a client id goes from one device to the other without end.
    fn fights(&self) -> CloseReason {
        let client_id = self.claimed.as_ref().map_or("", ClientId::as_str);
        self.shared.notices.fight(client_id, self.source.addr);
        CloseReason::TooMany
    }

    /// Finds which way the device goes, and reads from the path which device it is, where paths name any.
    fn find_route<'a>(
        shared: &'a Shared,
        upgrade: &mut Upgrade,
    ) -> Result<&'a Route, HandshakeError> {
        let request = &mut upgrade.request;
        let (route, named) = shared.routes.find(request.path(), &request.subprotocols)?;
        request.route.clone_from(&route.name);
        if let Some((parts, client_id)) = named {
            request.parts = parts;
            request.client_id = Some(client_id);
        }
        Ok(route)
    }

    /// Refuses a page that is not listed; where a certificate or a password decides and none is listed, one of another host than this.
    fn check_origin(&self, route: &Route, upgrade: &Upgrade) -> Result<(), HandshakeError> {
        let allowed = &self.shared.origins;
        let credentials = &upgrade.request.credentials;
        let has_hooks = self.shared.status.has_hooks();
        let is_replayed = route.auth.is_replayed_by_browsers(credentials)
            || (has_hooks && credentials.basic.is_some());
        if allowed.is_empty() && !is_replayed {
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
            self.shared.notices.origin(origin, self.source.addr);
            return Err(Refusal::new(403, "this origin is not allowed").into());
        }
        Ok(())
    }

    /// The host's hook decides, or else what is configured.
    async fn authenticate(
        &self,
        route: &Route,
        upgrade: &Upgrade,
    ) -> Result<Principal, HandshakeError> {
        let request = &upgrade.request;
        let has_hooks = self.shared.status.has_hooks();
        if let (Some(basic), Some(id)) = (&request.credentials.basic, request.parts.get("id"))
            && basic.user != id
            && (has_hooks || route.auth.takes_passwords())
        {
            let why = "the user of Authorization: Basic is another than the id in the path";
            return Err(Refusal::new(403, why).into());
        }
        let admission = if has_hooks {
            if let Some(fault) = upgrade.request.credentials.faults.headers {
                return Err(Refusal::new(400, fault).into()); // a hook would take it for none
            }
            self.shared.decisions.admission(&upgrade.request).await
        } else {
            Some(Admission::AsConfigured)
        };
        let principal = match admission {
            Some(Admission::Accept(client_id)) => client_id.into(),
            Some(Admission::AcceptWith(accepted)) if accepted.is_over() => {
                return Err(Refusal::new(401, "the token has expired").into());
            }
            Some(Admission::AcceptWith(accepted)) => {
                accepted.into_principal().map_err(|error| {
                    tracing::error!(
                        hook = "authenticate",
                        error,
                        "a hook's answer cannot be used"
                    );
                    unauthenticated()
                })?
            }
            Some(Admission::Reject(refusal)) => return Err(refusal.into()),
            Some(Admission::AsConfigured) => {
                let principal = route.auth.authenticate(&upgrade.request).await;
                principal.map_err(|(refusal, header)| {
                    let without_body = false;
                    HandshakeError::Refused(
                        refusal,
                        Extra {
                            header,
                            without_body,
                        },
                    )
                })?
            }
            None => return Err(unauthenticated().into()),
        };
        let named = upgrade.request.client_id.as_ref();
        if named.is_some_and(|named| *named != principal.client_id) {
            let why = "the credential is of another device than the path names";
            return Err(Refusal::new(403, why).into());
        }
        Ok(principal)
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
        let deadline = Instant::now() + self.shared.config.limits.write_timeout;
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
        let codecs = self.shared.codecs.as_ref();
        let deflated = upgrade.deflated().zip(codecs.cloned());
        let most = self.shared.config.limits.message_bytes;
        let socket = Socket::new(wire, rest, most, deflated);
        // A fresh task: this one has grown with the handshake.
        let mut session = Session::new(self.shared.clone(), seat.clone(), socket, permits);
        let form = upgrade.form();
        if form != Form::Bare {
            session.acknowledge(form);
        }
        if let Some(deliveries) = &self.shared.deliveries {
            deliveries.begin(&seat, form);
        }
        self.shared.sessions.spawn_inline(session.run());
    }

    /// The device gets its 101 and is told why it cannot stay, since a refusal would not reach it as a code: its id changes hands too
    /// often, or it speaks nothing that the gateway speaks.
    async fn close_at_once(
        self,
        mut wire: Wire,
        upgrade: &Upgrade,
        rest: Vec<u8>,
        reason: &CloseReason,
    ) {
        self.shared.counts.closed(reason);
        let code = reason.code().expect("whoever has no code is not told");
        let text = match reason {
            CloseReason::Protocol => NO_SUBPROTOCOL,
            reason => reason.as_str(),
        };
        let deadline = Instant::now() + self.shared.config.limits.close_timeout;
        let told = async {
            write(&mut wire, &upgrade.answer()).await?;
            let most = self.shared.config.limits.message_bytes;
            let mut socket = Socket::new(wire, rest, most, None); // nothing is read any more
            let _ = std::future::poll_fn(|cx| std::task::Poll::Ready(socket.close(cx, code, text)))
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
        if let Some(claimed) = &self.claimed {
            let tracer = &self.shared.status.tracer;
            tracer.tell(claimed.as_str(), |_| Traced::Refused {
                status: refusal.status,
                reason: refusal.reason.to_string(),
                remote_addr: self.source.addr.to_string(),
                route: self.route.clone(),
            });
        }
        tracing::debug!(remote_addr = %self.source.addr, status = refusal.status, reason = %refusal.reason, "Handshake refused");
        #[cfg(feature = "tls")]
        if self.shared.tls.is_some() && wire.is_plain() {
            return; // before TLS there is no way to tell, and TLS costs what there is too little of
        }
        let deadline = Instant::now() + self.shared.config.limits.close_timeout;
        let told = async {
            write(&mut wire, &handshake::refusal(refusal, extra)).await?;
            wire.end().await
        };
        if let Ok(Ok(stream)) = timeout_at(deadline, told).await {
            linger(stream, deadline, lingering).await;
        }
    }
}

/// The device that a path names, or a token that is the name itself. Any other token is a secret.
fn claim(route: &Route, upgrade: &Upgrade) -> Option<ClientId> {
    let request = &upgrade.request;
    let is_open = matches!(*route.auth, Auth::Open);
    let token = request.credentials.token.as_ref().filter(|_| is_open);
    let named = request.client_id.clone();
    named.or_else(|| token.and_then(ClientId::new))
}

/// What is known of the session beside its name, if there is anything or someone wants it.
fn context(
    route: &Route,
    upgrade: &Upgrade,
    profile: Option<Box<Profile>>,
) -> Option<Arc<Context>> {
    let request = &upgrade.request;
    let named = |name| request.headers_named(name);
    let trace = route
        .carries_trace
        .then(|| TraceContext::of(named("traceparent"), named("tracestate")));
    let trace = trace.flatten();
    if profile.is_none() && trace.is_none() && !route.keeps_context {
        return None;
    }
    let profile = *profile.unwrap_or_default();
    let mut context = Context::new(request.shown_path(), request.remote_addr);
    context.parts = request.parts.clone();
    context.route = route.name.clone();
    context.subprotocol = upgrade.subprotocol().map(str::to_owned);
    context.metadata = profile.metadata;
    context.groups = profile.groups;
    context.trace = trace;
    let forwarded = route.forward_headers.iter();
    context.headers = forwarded
        .flat_map(|name| {
            let values = request.headers_named(name);
            values.map(move |value| (name.clone(), value.to_owned()))
        })
        .collect();
    Some(Arc::new(context))
}

fn unauthenticated() -> Refusal {
    Refusal::new(503, "the authentication failed").with_retry_after(1)
}

/// Another session has the id, here or at another gateway, and may keep it.
fn taken() -> HandshakeError {
    Refusal::new(409, "this client id is connected already").into()
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

const NO_SUBPROTOCOL: &str = "no subprotocol in common";

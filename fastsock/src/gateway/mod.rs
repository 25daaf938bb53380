//! From an accepted connection to a session in its seat: limits, handshake, admission, takeover, 101.

pub(crate) mod linger;
pub(crate) mod session;
pub(crate) mod shared;
pub(crate) mod socket;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use socket2::{Domain, Protocol, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout_at},
};

use crate::{
    auth::Admitted,
    config::{Config, origin::Origin},
    error::{Error, ErrorKind, Result},
    gateway::{
        linger::{LINGERING_MAX, LINGERING_MAX_WHEN_FULL, linger},
        session::Session,
        shared::{Place, Places, Shared},
        socket::Socket,
    },
    hooks::Admission,
    net::{CertifiedName, proxy, wire::Wire},
    pure::{
        handshake::{self, Extra, Head, HeadLimits, Upgrade},
        limits::Bucket,
    },
    registry::{Seating, seat::Seat},
    remote_addr::RemoteAddr,
    types::{CloseReason, Refusal},
};

/// Binds the device port: all addresses, IPv6 and IPv4 on one socket where there is IPv6, unless one is named.
///
/// # Errors
/// `Bind`, naming the address and the setting.
pub(crate) fn bind(config: &Config) -> Result<TcpListener> {
    let port = config.websocket_port;
    let bound = match config.listen_addr {
        Some(ip) => listen((ip, port).into(), config.listen_reuseport),
        None => match listen(
            (Ipv6Addr::UNSPECIFIED, port).into(),
            config.listen_reuseport,
        ) {
            Err(error) if is_without_ipv6(&error) => listen(
                (Ipv4Addr::UNSPECIFIED, port).into(),
                config.listen_reuseport,
            ),
            bound => bound,
        },
    };
    let ip = config
        .listen_addr
        .unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let bound = bound.inspect(|listener| {
        // What is accepted inherits it. A slow device then keeps little in the kernel beside its outbox, and takes what is
        // written in small steps: with megabytes in between, a slow reader shows no progress for a long time.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_MAX_BYTES);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = listener;
    });
    bound.map_err(|e| {
        let setting = match e.kind() {
            io::ErrorKind::AddrNotAvailable => "FASTSOCK_LISTEN_ADDR",
            _ => "WEBSOCKET_PORT",
        };
        let addr = SocketAddr::new(ip, port);
        Error::new(
            ErrorKind::Bind,
            format!("{setting}: cannot listen on {addr}"),
        )
        .with_source(e)
    })
}

/// Binds one address.
pub(crate) fn listen(addr: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?; // so that a restart need not wait for TIME_WAIT; a taken port stays an error
    #[cfg(unix)]
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the gateway stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut door = Door::new(&shared.config);
    let mut spare = Spare::new();
    let mut is_told = false;
    loop {
        let accepted = tokio::select! {
            () = shared.gateway.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                is_told = false;
                admit(&shared, stream, addr, &mut door);
            }
            Err(error) if is_exhausted(&error) => {
                shared.running.accept_paused.add(1);
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "out of descriptors; the gateway pauses accepting");
                }
                spare.shed(&listener);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                spare.restore();
            }
            // The peer has gone before it was accepted: its business.
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// Starts the handshake of a connection, if there is a place for it. Whom a limit turns away is answered unheard: reading
/// a head from everybody is what there is no room for.
fn admit(shared: &Arc<Shared>, stream: TcpStream, addr: SocketAddr, door: &mut Door) {
    let _ = stream.set_nodelay(true);
    let addr = RemoteAddr::from(addr);
    let handshake = Handshake {
        shared: shared.clone(),
        addr,
        is_told: true,
    };
    match door.enter(shared, addr.ip(), Instant::now()) {
        Ok((places, turn)) => {
            let task = handshake.run(stream, places, turn);
            shared.gateway.spawn_until_stopped(task);
        }
        Err(refusal) => {
            shared.gateway.spawn_until_stopped(async move {
                let (extra, at_most) = (Extra::default(), LINGERING_MAX_WHEN_FULL);
                handshake
                    .refuse(stream.into(), &refusal, extra, at_most)
                    .await;
            });
        }
    }
}

/// The limits a connection meets before anything is read from it.
struct Door {
    connections: usize,
    accepts: Option<Bucket>,
    /// Handshakes at once, and how many there are, if they are limited.
    handshakes: Option<(usize, Arc<AtomicUsize>)>,
}

impl Door {
    fn new(config: &Config) -> Self {
        let handshakes = config.limit_handshakes;
        Self {
            connections: connection_limit(config),
            accepts: Bucket::new(config.limit_accepts.into(), Instant::now()),
            handshakes: (handshakes > 0).then(|| (handshakes, Arc::default())),
        }
    }

    /// Gives a connection its places, and its turn among the handshakes.
    fn enter(
        &mut self,
        shared: &Shared,
        ip: IpAddr,
        now: Instant,
    ) -> Result<(Places, Option<Place>), Refusal> {
        if self.accepts.as_mut().is_some_and(|a| !a.try_take(now)) {
            return Err(too_many("connections in this second").with_retry_after(1));
        }
        let connection = Place::take(&shared.connections, self.connections)
            .ok_or_else(|| too_many("connections"))?;
        let turn = match &self.handshakes {
            None => None,
            Some((most, handshakes)) => {
                Some(Place::take(handshakes, *most).ok_or_else(|| too_many("handshakes"))?)
            }
        };
        let mut places = Places::of(connection);
        if !places.take_of_address(shared, ip) {
            return Err(too_many_of_address());
        }
        Ok((places, turn))
    }
}

/// The gateway has too many of something; that is not the device's doing.
fn too_many(what: &str) -> Refusal {
    Refusal::new(503, format!("too many {what}")).with_retry_after(RETRY_AFTER_S)
}

fn too_many_of_address() -> Refusal {
    Refusal::new(429, "too many connections from this address").with_retry_after(RETRY_AFTER_S)
}

/// One handshake.
struct Handshake {
    shared: Arc<Shared>,
    /// Where the device is, or the last that can be trusted on the way to it.
    addr: RemoteAddr,
    /// Whether that one told us who is behind it. A proxy that says of a connection only that it is there (`PROXY UNKNOWN`,
    /// `LOCAL`) has read nothing of it: what else it holds is the device's own word.
    is_told: bool,
}

/// A handshake that ends without a session.
enum Broken {
    /// It is answered.
    Refused(Refusal, Extra),
    /// Nobody is there to be answered.
    Abandoned,
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, Extra::default())
    }
}

impl Handshake {
    async fn run(mut self, mut stream: TcpStream, mut places: Places, turn: Option<Place>) {
        let deadline = Instant::now() + self.shared.config.limit_handshake_time;
        let heard = timeout_at(deadline, self.hear_proxy(&mut stream, &mut places)).await;
        let (mut wire, name) = match heard.unwrap_or(Err(Broken::Abandoned)) {
            Ok(()) => match timeout_at(deadline, self.secure(stream)).await {
                Ok(Some(secured)) => secured,
                Ok(None) | Err(_) => return self.abandon(),
            },
            Err(Broken::Refused(refusal, extra)) => {
                drop(turn);
                return self
                    .refuse(stream.into(), &refusal, extra, LINGERING_MAX)
                    .await;
            }
            Err(Broken::Abandoned) => return self.abandon(),
        };
        let head = timeout_at(deadline, self.read_head(&mut wire, name))
            .await
            .unwrap_or(Err(Broken::Abandoned));
        let seated = match head {
            Ok((mut upgrade, rest)) => self
                .seat(&mut upgrade, &mut places)
                .await
                .map(|seating| (upgrade, rest, seating)),
            Err(broken) => Err(broken),
        };
        drop(turn);
        match seated {
            Ok((upgrade, rest, Some(seat))) => {
                self.open(wire, &upgrade, rest, seat, places).await;
            }
            Ok((upgrade, rest, None)) => self.end_fight(wire, &upgrade, rest).await,
            Err(Broken::Refused(refusal, extra)) => {
                self.refuse(wire, &refusal, extra, LINGERING_MAX).await;
            }
            Err(Broken::Abandoned) => self.abandon(),
        }
    }

    /// The TLS handshake, if the port has TLS. Returns what the device's certificate names, too.
    #[cfg(feature = "tls")]
    async fn secure(&self, stream: TcpStream) -> Option<(Wire, CertifiedName)> {
        let Some(tls) = &self.shared.tls else {
            return Some((stream.into(), Ok(None)));
        };
        let secured = tls.accept(stream.into()).await.inspect_err(|error| {
            self.shared.running.tls_failed.add(1);
            tracing::debug!(remote_addr = %self.addr, %error, "TLS handshake failed");
        });
        secured.ok()
    }

    #[cfg(not(feature = "tls"))]
    async fn secure(&self, stream: TcpStream) -> Option<(Wire, CertifiedName)> {
        Some((stream.into(), Ok(None)))
    }

    fn abandon(&self) {
        self.shared.books.lock().abandoned += 1;
    }

    /// Reads the PROXY header that a trusted proxy has to send, and not one byte more: what follows may be TLS.
    async fn hear_proxy(
        &mut self,
        stream: &mut TcpStream,
        places: &mut Places,
    ) -> Result<(), Broken> {
        if !self.shared.config.proxy_protocol || !self.shared.is_proxy(self.addr.ip()) {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(128);
        let device = loop {
            match proxy::parse(&bytes) {
                proxy::Header::Partial(missing) => {
                    let mut missing = (&mut *stream).take(missing as u64);
                    match missing.read_buf(&mut bytes).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return Err(Broken::Abandoned),
                    }
                }
                proxy::Header::Whole(device) => break device,
                proxy::Header::Bad => {
                    return Err(Refusal::new(400, "a PROXY header is required").into());
                }
            }
        };
        self.is_told = device.is_some();
        self.addr = device.unwrap_or(self.addr);
        self.take_place(places)
    }

    /// Takes the word of trusted HTTP proxies on where the device is.
    fn find_device(&mut self, upgrade: &mut Upgrade, places: &mut Places) -> Result<(), Broken> {
        if self.is_told && !self.shared.trusted.is_empty() {
            let forwarded = upgrade.fields("x-forwarded-for");
            self.addr = proxy::forwarded_for(forwarded, self.addr, &self.shared.trusted);
            upgrade.request.remote_addr = self.addr;
        }
        self.take_place(places)
    }

    fn take_place(&self, places: &mut Places) -> Result<(), Broken> {
        match places.take_of_address(&self.shared, self.addr.ip()) {
            true => Ok(()),
            false => Err(too_many_of_address().into()),
        }
    }

    /// Reads until the head is whole. Returns what came after it, too. `name` is that of the device's certificate.
    async fn read_head(
        &self,
        wire: &mut Wire,
        name: CertifiedName,
    ) -> Result<(Box<Upgrade>, Vec<u8>), Broken> {
        let config = &self.shared.config;
        let limits = HeadLimits {
            bytes: config.limit_head_bytes,
            headers: config.limit_headers,
        };
        let mut bytes = Vec::with_capacity(1024);
        loop {
            // One byte over the limit is read, so that a head of just that size is told from a longer one.
            let room = (limits.bytes + 1).saturating_sub(bytes.len()).max(1) as u64;
            match (&mut *wire).take(room).read_buf(&mut bytes).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Broken::Abandoned),
            }
            match handshake::parse(&bytes, &limits, self.addr) {
                Head::Partial => {}
                Head::Refused(refusal, extra) => return Err(Broken::Refused(refusal, extra)),
                Head::Upgrade(mut upgrade, length) => {
                    let credentials = &mut upgrade.request.credentials;
                    match name {
                        Ok(name) => credentials.certificate = name,
                        Err(fault) => credentials.faults.certificate = Some(fault),
                    }
                    return Ok((upgrade, bytes.split_off(length)));
                }
            }
        }
    }

    /// Admits the device and gives it its seat; `None` when its id is being fought over.
    async fn seat(
        &mut self,
        upgrade: &mut Upgrade,
        places: &mut Places,
    ) -> Result<Option<Arc<Seat>>, Broken> {
        if self.shared.config.ack {
            upgrade.choose_ack();
        }
        self.check_origin(upgrade)?;
        self.find_device(upgrade, places)?;
        let admitted = self.authenticate(upgrade).await?;
        let next = || self.shared.session_id();
        let seat = match self
            .shared
            .registry
            .seat(admitted, next, self.addr, Instant::now())
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
    fn check_origin(&self, upgrade: &Upgrade) -> Result<(), Broken> {
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
        let is_allowed = match allowed.is_empty() {
            true => upgrade.is_own_origin(origin),
            false => Origin::parse(origin).is_ok_and(|o| allowed.iter().any(|a| a.allows(&o))),
        };
        match is_allowed {
            true => Ok(()),
            false => Err(Refusal::new(403, "this origin is not allowed").into()),
        }
    }

    /// The host's hook decides, or else what is configured.
    async fn authenticate(&self, upgrade: &Upgrade) -> Result<Admitted, Broken> {
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
                let admitted = self.shared.auth.admit(&upgrade.request).await;
                admitted.map_err(|(refusal, header)| {
                    let without_body = false;
                    Broken::Refused(
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
        places: Places,
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
            return self.abandon(); // the guard empties the seat
        }
        std::mem::forget(guard); // from here on the session answers for the seat
        self.shared.welcome(&seat);
        self.shared
            .broker
            .seen(&seat.client_id, seat.mark_seen(SystemTime::now()));
        let socket = Socket::new(wire, rest, self.shared.config.limit_message_bytes);
        // A fresh task: this one has grown with the handshake.
        let mut session = Session::new(self.shared.clone(), seat, socket, places);
        if upgrade.speaks_ack() {
            session.acknowledge();
        }
        self.shared.sessions.spawn_inline(session.run());
    }

    /// The id changes hands too often: the device gets its 101 and is told so, since a refusal would not reach it as a code.
    async fn end_fight(self, mut wire: Wire, upgrade: &Upgrade, rest: Vec<u8>) {
        *self
            .shared
            .books
            .lock()
            .closed
            .entry(CloseReason::TooMany.as_str().to_owned())
            .or_default() += 1;
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
            linger(stream, deadline, &self.shared.lingering, LINGERING_MAX).await;
        }
    }

    async fn refuse(&self, mut wire: Wire, refusal: &Refusal, extra: Extra, at_most: usize) {
        self.shared.count_refusal(refusal.status);
        tracing::debug!(remote_addr = %self.addr, status = refusal.status, reason = %refusal.reason, "Handshake refused");
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
            linger(stream, deadline, &self.shared.lingering, at_most).await;
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
        self.shared.see_off(self.seat, &CloseReason::Lost);
    }
}

/// A descriptor kept for the day there is none left: without it, a connection that cannot be accepted stays in the
/// backlog, and the peer waits for an answer that never comes.
struct Spare(Option<std::fs::File>);

impl Spare {
    fn new() -> Self {
        Self(std::fs::File::open("/dev/null").ok())
    }

    /// Uses the spare to accept and drop one connection.
    fn shed(&mut self, listener: &TcpListener) {
        if self.0.take().is_some() {
            use std::task::{Context, Poll, Waker};
            if let Poll::Ready(Ok((stream, _))) =
                listener.poll_accept(&mut Context::from_waker(Waker::noop()))
            {
                drop(stream);
            }
        }
    }

    fn restore(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }
}

fn connection_limit(config: &Config) -> usize {
    match config.limit_connections {
        0 => {
            let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            descriptors
                .and_then(|n| usize::try_from(n).ok())
                .map_or(usize::MAX, |n| n.saturating_sub(DESCRIPTORS_KEPT).max(1))
        }
        limit => limit,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

const BACKLOG: i32 = 4096;
/// Bytes of a device's downlinks that the kernel takes before it can send them (TCP_NOTSENT_LOWAT). A device that reads 20 KB a
/// second makes some room in it each second, and so is seen to read; with 64 KiB it had to be 60 KB. Bulk costs the same CPU.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX_BYTES: u32 = 16 << 10;
/// Descriptors kept for Redis, the remote, logs and the admin listener.
const DESCRIPTORS_KEPT: usize = 64;
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
const RETRY_AFTER_S: u32 = 5;

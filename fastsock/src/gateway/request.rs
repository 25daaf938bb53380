//! What comes over a connection before it is anybody's: the PROXY header, the TLS handshake, the request head.

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{limits::Permits, shared::Shared};
use crate::{
    config::Config,
    net::{Certified, proxy, wire::Wire},
    pure::handshake::{self, Extra, Head, HeadLimits, Upgrade},
    remote_addr::RemoteAddr,
    types::Refusal,
};

/// Where a connection comes from.
pub(super) struct Source {
    /// Where the device is, or the last that can be trusted on the way to it.
    pub(super) addr: RemoteAddr,
    /// Whether that one told us who is behind it. A proxy that says of a connection only that it is there (`PROXY UNKNOWN`,
    /// `LOCAL`) has read nothing of it: what else it holds is the device's own word.
    is_told: bool,
}

/// A handshake that ends without a session.
pub(super) enum HandshakeError {
    /// It is answered.
    Refused(Refusal, Extra),
    /// Nobody is there to be answered.
    Abandoned,
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, Extra::default())
    }
}

impl Source {
    pub(super) fn new(addr: RemoteAddr) -> Self {
        Self {
            addr,
            is_told: true,
        }
    }

    /// Reads the PROXY header that a trusted proxy has to send, and not one byte more: what follows may be TLS.
    pub(super) async fn read_proxy_header(
        &mut self,
        shared: &Shared,
        stream: &mut TcpStream,
        permits: &mut Permits,
    ) -> Result<(), HandshakeError> {
        if !shared.config.proxies.protocol || !shared.limits.is_proxy(self.addr.ip()) {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(128);
        let device = loop {
            match proxy::parse(&bytes) {
                proxy::Header::Partial(missing) => {
                    let mut missing = (&mut *stream).take(missing as u64);
                    match missing.read_buf(&mut bytes).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return Err(HandshakeError::Abandoned),
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
        self.acquire_address(shared, permits)
    }

    /// Takes the word of trusted HTTP proxies on where the device is.
    pub(super) fn take_forwarded(
        &mut self,
        shared: &Shared,
        upgrade: &mut Upgrade,
        permits: &mut Permits,
    ) -> Result<(), HandshakeError> {
        let trusted = &shared.limits.trusted;
        if self.is_told && !trusted.is_empty() {
            let forwarded = upgrade.fields("x-forwarded-for");
            self.addr = proxy::forwarded_for(forwarded, self.addr, trusted);
            upgrade.request.remote_addr = self.addr;
        }
        self.acquire_address(shared, permits)
    }

    /// A permit among those of its address, now that this is known.
    fn acquire_address(
        &self,
        shared: &Shared,
        permits: &mut Permits,
    ) -> Result<(), HandshakeError> {
        let acquired = shared.limits.acquire_address(permits, self.addr.ip());
        Ok(acquired.inspect_err(|refusal| shared.notices.limit(&refusal.reason, self.addr))?)
    }
}

/// The TLS handshake, if the port has TLS. Returns what the device's certificate says, too.
#[cfg(feature = "tls")]
pub(super) async fn secure(
    shared: &Shared,
    source: &Source,
    stream: TcpStream,
) -> Option<(Wire, Certified)> {
    let Some(tls) = &shared.tls else {
        return Some((stream.into(), Certified::NONE));
    };
    let secured = tls.accept(stream.into()).await.inspect_err(|error| {
        shared.running.tls_failed.add(1);
        tracing::debug!(remote_addr = %source.addr, %error, "TLS handshake failed");
    });
    secured.ok()
}

#[cfg(not(feature = "tls"))]
pub(super) async fn secure(_: &Shared, _: &Source, stream: TcpStream) -> Option<(Wire, Certified)> {
    Some((stream.into(), Certified::NONE))
}

/// Reads until the head is whole. Returns what came after it, too. `certified` is what the device's certificate says.
pub(super) async fn read_head(
    config: &Config,
    source: &Source,
    wire: &mut Wire,
    certified: Certified,
) -> Result<(Box<Upgrade>, Vec<u8>), HandshakeError> {
    let limits = HeadLimits {
        bytes: config.limits.head_bytes,
        headers: MAX_HEADERS,
        is_strict: config.listen.strict_handshake,
    };
    let mut bytes = Vec::with_capacity(1024);
    loop {
        // One byte over the limit is read, so that a head of just that size is told from a longer one.
        let room = (limits.bytes + 1).saturating_sub(bytes.len()).max(1) as u64;
        match (&mut *wire).take(room).read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(HandshakeError::Abandoned),
        }
        match handshake::parse(&bytes, &limits, source.addr) {
            Head::Partial => {}
            Head::Refused(refusal, extra) => return Err(HandshakeError::Refused(refusal, extra)),
            Head::Upgrade(mut upgrade, length) => {
                let credentials = &mut upgrade.request.credentials;
                match certified.name {
                    Ok(name) => credentials.certificate = name,
                    Err(fault) => credentials.faults.certificate = Some(fault),
                }
                upgrade.request.certificate_names = certified.names;
                return Ok((upgrade, bytes.split_off(length)));
            }
        }
    }
}

/// Most header fields of a request.
const MAX_HEADERS: usize = 100;

//! Where a device is.

use std::{
    fmt,
    net::{AddrParseError, IpAddr, SocketAddr},
    num::NonZeroU16,
};

use serde::{Serialize, Serializer};

/// Where a device is: its address, and its port if it is known (most proxies send the address alone).
///
/// An IPv4 device is never seen as `::ffff:…`. As text it is `192.0.2.1:4660`, `[2001:db8::1]:4660`, or, without a port,
/// `192.0.2.1` and `2001:db8::1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemoteAddr {
    ip: IpAddr,
    port: Option<NonZeroU16>,
}

impl RemoteAddr {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The port, if it is known.
    pub fn port(&self) -> Option<u16> {
        self.port.map(NonZeroU16::get)
    }
}

impl From<IpAddr> for RemoteAddr {
    fn from(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self { ip, port: None }
    }
}

/// Port 0 is none.
impl From<SocketAddr> for RemoteAddr {
    fn from(addr: SocketAddr) -> Self {
        let port = NonZeroU16::new(addr.port());
        Self {
            port,
            ..addr.ip().into()
        }
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port() {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl fmt::Debug for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what `Display` writes.
impl std::str::FromStr for RemoteAddr {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.parse::<SocketAddr>() {
            Ok(addr) => Ok(addr.into()),
            Err(_) => text.parse::<IpAddr>().map(Self::from),
        }
    }
}

impl Serialize for RemoteAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! Ports that stay ours.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use parking_lot::Mutex;

/// A free TCP port of loopback, never handed out twice by one process.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections, so that a server can be
/// stopped and come back on its port without finding it taken, and nothing connects to itself meanwhile.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock();
    let taken = taken.get_or_insert_default();
    for _ in 0..1000 {
        let port = fastrand::u16(10_000..32_000);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port from 10000 to 31999");
}

/// The loopback address that reaches a listener on an unspecified address (`0.0.0.0`, `::`); other addresses as they are.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

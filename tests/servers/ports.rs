//! Ports that stay ours.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::DEADLINE;

/// A free TCP port of loopback, never handed out twice by one process, nor by another while this one lives.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections, so that a server can be
/// stopped and come back on its port without finding it taken, and nothing connects to itself meanwhile.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Option<HashMap<u16, UnixDatagram>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..1000 {
        let port = fastrand::u16(10_000..32_000);
        if taken.contains_key(&port) {
            continue;
        }
        let Ok(mark) = mark(port) else {
            continue; // another process has it
        };
        // Not by listening: a child that is started meanwhile would keep our listener until it executes its program.
        if bound((Ipv4Addr::LOCALHOST, port).into()).is_ok() {
            taken.insert(port, mark);
            return port;
        }
    }
    panic!("no free port from 10000 to 31999");
}

/// Marks a port as taken, by a name that one process can have at a time and that goes with it. Fails when another has it.
#[cfg(target_os = "linux")]
fn mark(port: u16) -> io::Result<UnixDatagram> {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = SocketAddr::from_abstract_name(format!("fastsock-test-port-{port}"))?;
    UnixDatagram::bind_addr(&name)
}

/// Elsewhere there are no such names.
#[cfg(not(target_os = "linux"))]
fn mark(_: u16) -> io::Result<UnixDatagram> {
    UnixDatagram::unbound()
}

/// Binds the address of a listener of ours that was just dropped, without listening.
///
/// Children that were started while it listened have copies of it until they execute their programs, so that the
/// address may be in use for a moment.
pub fn bound_again(addr: SocketAddr) -> io::Result<Socket> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match bound(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1)); // polls until the kernel lets go of it
            }
            result => return result,
        }
    }
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// The loopback address that reaches a listener on an unspecified address (`0.0.0.0`, `::`); other addresses as they are.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

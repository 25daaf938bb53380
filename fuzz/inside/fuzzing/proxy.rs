//! What a proxy says before the head, and in it.

use std::net::{Ipv4Addr, SocketAddr};

use super::halves;
use crate::{
    net::proxy::{self, Header},
    remote_addr::RemoteAddr,
};

/// A PROXY header is read to its last byte and not beyond, and never for long. `X-Forwarded-For` moves the address only
/// while those who say so are trusted.
pub fn proxy_header(bytes: &[u8]) {
    let mut read = 0;
    loop {
        match proxy::parse(&bytes[..read]) {
            Header::Partial(missing) => {
                assert!(missing > 0);
                read += missing;
                assert!(read <= 4096, "{read} bytes of a header");
                if read > bytes.len() {
                    break;
                }
            }
            Header::Whole(device) => {
                assert_eq!(read, length_of(bytes), "{:?}", &bytes[..read]);
                assert!(device.is_none_or(|addr| addr.ip() == addr.ip().to_canonical()));
                break;
            }
            Header::Bad => break,
        }
    }
    forwarded_for(bytes);
}

/// Version 1 ends with its line, version 2 says how long it is.
fn length_of(header: &[u8]) -> usize {
    if header.starts_with(b"PROXY") {
        let end = header.windows(2).position(|two| two == b"\r\n");
        return end.expect("a line") + 2;
    }
    16 + usize::from(u16::from_be_bytes([header[14], header[15]]))
}

fn forwarded_for(bytes: &[u8]) {
    let (first, second) = halves(bytes);
    let fields = [first, second].map(String::from_utf8_lossy);
    let fields = || fields.iter().map(|field| &**field);
    let proxy = RemoteAddr::from(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 1)));
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let device = proxy::forwarded_for(fields(), proxy, &trusted);
    if device != proxy {
        // Somebody said it: as text, it leads to the same.
        let said = device.to_string();
        let again = proxy::forwarded_for([said.as_str()].into_iter(), proxy, &trusted);
        assert_eq!(again, device);
    }
    let stranger = RemoteAddr::from(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1)));
    assert_eq!(proxy::forwarded_for(fields(), stranger, &trusted), stranger);
    assert_eq!(proxy::forwarded_for(fields(), proxy, &[]), proxy);
}

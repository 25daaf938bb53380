//! Who a device behind proxies is: the PROXY protocol, versions 1 and 2, and `X-Forwarded-For`. No I/O.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, ProxyHeader};

use crate::remote_addr::RemoteAddr;

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Not all of a header yet: at least so many bytes are missing, and all of those belong to it.
    Partial(usize),
    /// A header, and the device's address; `None` when the proxy speaks for itself, as in a health check.
    Whole(Option<RemoteAddr>),
    /// No header.
    Bad,
}

/// Reads what came so far of a PROXY header.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: true,
    };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, _)) => {
            let source = header.proxied_address().map(|address| address.source);
            Header::Whole(source.map(RemoteAddr::from))
        }
        Err(Error::BufferTooShort) => missing(bytes).map_or(Header::Bad, Header::Partial),
        Err(_) => Header::Bad,
    }
}

/// How many bytes a header that is not whole lacks at least; `None` when it would be too long.
fn missing(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < SHORTEST_BYTES {
        return Some(SHORTEST_BYTES - bytes.len());
    }
    if !bytes.starts_with(V2_BEGIN) {
        return Some(1); // version 1 ends where its line ends
    }
    let Some(length) = bytes.get(V2_LENGTH_AT..V2_LENGTH_AT + 2) else {
        return Some(1);
    };
    let whole = V2_LENGTH_AT + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    (whole <= LONGEST_BYTES).then(|| whole.saturating_sub(bytes.len()).max(1))
}

/// Whether an address is that of a proxy of ours.
pub(crate) fn is_trusted(trusted: &[IpNet], ip: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// The device's address: the sender's, unless that is a proxy of ours; then the last of `X-Forwarded-For` that is none. What
/// stands before that one was said by somebody we do not know.
///
/// `fields` are the values of the header, in the order sent.
pub(crate) fn forwarded_for<'a>(
    fields: impl DoubleEndedIterator<Item = &'a str>,
    sender: RemoteAddr,
    trusted: &[IpNet],
) -> RemoteAddr {
    let mut addr = sender;
    for member in fields.rev().flat_map(|field| field.rsplit(',')) {
        if !is_trusted(trusted, addr.ip()) {
            break;
        }
        let Some(before) = address(member.trim()) else {
            break;
        };
        addr = before;
    }
    addr
}

/// An address with or without a port, in brackets or not.
fn address(text: &str) -> Option<RemoteAddr> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some(addr.into());
    }
    let ip = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip: IpAddr = ip.unwrap_or(text).parse().ok()?;
    Some(ip.into())
}

/// `PROXY UNKNOWN` and its end of line.
const SHORTEST_BYTES: usize = 15;
/// More than any proxy says; the type-length-values of version 2 are skipped.
const LONGEST_BYTES: usize = 4096;
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_LENGTH_AT: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x50";

    #[test]
    fn a_header_is_read_to_its_last_byte_and_not_beyond() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n";
        let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 80\r\n";
        let with_tlv = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10",
            &V2[16..],
            b"\x04\0\x01\0",
        ]
        .concat();
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        for (header, device) in [
            (&v1[..], Some("192.0.2.1:4660")),
            (v6, Some("[2001:db8::1]:4660")),
            (V2, Some("192.0.2.1:4660")),
            (&with_tlv, Some("192.0.2.1:4660")),
            (local, None),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ff ff 1 2\r\n", None),
        ] {
            let mut read = 0;
            let whole = loop {
                match parse(&header[..read]) {
                    Header::Partial(more) => read += more,
                    whole => break whole,
                }
                assert!(read <= header.len(), "{header:?}");
            };
            assert_eq!(read, header.len(), "{header:?}");
            let device = device.map(|addr| address(addr).unwrap());
            assert_eq!(whole, Header::Whole(device), "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_bad() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let mut too_long = V2.to_vec();
        too_long[14] = 0xff;
        let mut version_3 = V2.to_vec();
        version_3[12] = 0x31;
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".as_slice(),
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0\0\0",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 80\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 1 80\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 1 80\r\n",
            &endless,
            &too_long,
            &version_3,
        ] {
            assert_eq!(parse(bytes), Header::Bad, "{bytes:?}");
        }
    }

    #[test]
    fn the_device_is_the_last_one_that_is_no_proxy_of_ours() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8:1::/48"]
            .map(|network| network.parse().unwrap())
            .to_vec();
        for (fields, sender, device) in [
            (&["192.0.2.1"][..], "10.0.0.1:5", "192.0.2.1"),
            (&["192.0.2.1"], "192.0.2.9:5", "192.0.2.9:5"),
            (
                &["192.0.2.7, 192.0.2.1, 10.0.0.2"],
                "10.0.0.1:5",
                "192.0.2.1",
            ),
            (
                &["192.0.2.7", "192.0.2.1 ,10.0.0.2"],
                "10.0.0.1:5",
                "192.0.2.1",
            ),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.1:5", "10.0.0.3"),
            (&["192.0.2.7, nonsense"], "10.0.0.1:5", "10.0.0.1:5"),
            (&["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.1:5", "10.0.0.2"),
            (&[""], "10.0.0.1:5", "10.0.0.1:5"),
            (&[], "10.0.0.1:5", "10.0.0.1:5"),
            (&["192.0.2.1:80"], "10.0.0.1:5", "192.0.2.1:80"),
            (&["2001:db8::1"], "[2001:db8:1::9]:5", "2001:db8::1"),
            (&["[2001:db8::1]:80"], "10.0.0.1:5", "[2001:db8::1]:80"),
            (&["[2001:db8::1]"], "10.0.0.1:5", "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "10.0.0.1:5", "192.0.2.1"),
        ] {
            let sender = address(sender).unwrap();
            let found = forwarded_for(fields.iter().copied(), sender, &trusted);
            assert_eq!(found.to_string(), device, "{fields:?} from {sender}");
        }
    }
}

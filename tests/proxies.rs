//! Devices behind proxies: the PROXY protocol and `X-Forwarded-For`, and whose word is taken.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks and threads"
)]

#[path = "proxies/servers.rs"]
mod servers;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use fastsock::{
    Admission, Bridge, Config, ConnectRequest, Decision, ErrorKind, Hooks, RemoteAddr, Ticket,
};
use parking_lot::Mutex;
use support::{Frame, Gateway, RawDevice, eventually, opcode, start};

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n";
/// 192.0.2.1:4660 to 192.0.2.2:80, and a type-length-value after it.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x50\x04\0\x01\0";
/// A proxy that speaks for itself.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[tokio::test]
async fn a_proxy_says_where_the_device_is_in_either_version_and_in_any_pieces() {
    let bridge = start(behind_proxy()).await;
    for header in [V1, V2] {
        for piece in [1, 16, 1000] {
            let mut device = connect(PROXY, &bridge).await;
            let head = RawDevice::upgrade_request("/?token=dev1", &[]);
            let bytes = [header, head.as_bytes()].concat();
            for bytes in bytes.chunks(piece) {
                device.write(bytes).await;
            }
            assert!(device.read_head().await.starts_with("HTTP/1.1 101 "));
            assert_eq!(place(&bridge).to_string(), "192.0.2.1:4660");
            device.send(&Frame::ping("")).await; // nothing of the header is left in the way
            assert_eq!(device.frame().await.opcode, opcode::PONG);
        }
    }
    let mut device = connect(PROXY, &bridge).await;
    device.write(V2_LOCAL).await;
    assert_eq!(upgrade(&mut device, &[]).await, 101);
    assert_eq!(place(&bridge), device.local_addr().into());
}

#[tokio::test]
async fn a_proxy_that_does_not_say_who_is_there_vouches_for_nothing_that_was_sent() {
    let config = behind_proxy().limit_connections_per_ip(1usize);
    let bridge = start(config).await;
    let said = ["X-Forwarded-For: 192.0.2.66"];
    let mut victim = connect(PROXY, &bridge).await;
    victim
        .write("PROXY TCP4 192.0.2.66 192.0.2.2 1 80\r\n")
        .await;
    assert_eq!(upgrade(&mut victim, &[]).await, 101);
    for (what, header) in [
        ("unknown", &b"PROXY UNKNOWN\r\n"[..]),
        (
            "unknown with addresses",
            b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 80\r\n",
        ),
        ("local", V2_LOCAL),
        (
            "local with addresses",
            b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x50",
        ),
        ("of an unspecified kind", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"),
        (
            "of an unspecified kind, with bytes",
            b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x04\x01\x02\x03\x04",
        ),
    ] {
        let mut device = connect(PROXY, &bridge).await;
        device.write(header).await;
        // Neither is it taken for the one it names, nor does it use up what that one may have.
        assert_eq!(upgrade(&mut device, &said).await, 101, "{what}");
        assert_eq!(place(&bridge), device.local_addr().into(), "{what}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_may_say_so_and_it_must() {
    let bridge = start(behind_proxy()).await;
    for header in [V1, V2] {
        let mut device = connect(OTHER, &bridge).await;
        device.write(header).await;
        assert_eq!(upgrade(&mut device, &[]).await, 400);
    }
    let mut silent = connect(PROXY, &bridge).await;
    assert_eq!(upgrade(&mut silent, &[]).await, 400);
    assert_eq!(bridge.stats().sessions.refused[&400], 3);

    let mut direct = connect(OTHER, &bridge).await;
    assert_eq!(upgrade(&mut direct, &[]).await, 101);
    assert_eq!(place(&bridge), direct.local_addr().into());

    let off = start(config().trusted_proxies(vec![PROXY.to_string()])).await;
    let mut device = connect(PROXY, &off).await;
    device.write(V1).await;
    assert_eq!(upgrade(&mut device, &[]).await, 400);
}

#[tokio::test]
async fn a_header_that_does_not_come_costs_the_connection() {
    let config = behind_proxy().limit_handshake_time(Duration::from_millis(300));
    let bridge = start(config).await;
    let mut device = connect(PROXY, &bridge).await;
    device.write(&V2[..20]).await;
    assert_eq!(device.read_to_end().await, b"");
    eventually("it is counted", async || {
        bridge.stats().sessions.abandoned == 1
    })
    .await;
}

#[tokio::test]
async fn of_forwarded_addresses_the_last_that_is_no_proxy_of_ours_counts() {
    let trusted = vec!["127.0.0.2".into(), "10.0.0.0/8".into()];
    let bridge = start(config().trusted_proxies(trusted)).await;
    for (source, lines, expected) in [
        (
            PROXY,
            &["X-Forwarded-For: 192.0.2.1"][..],
            Some("192.0.2.1"),
        ),
        (
            PROXY,
            &["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.9"],
            Some("192.0.2.1"),
        ),
        (
            PROXY,
            &[
                "X-Forwarded-For: 6.6.6.6",
                "x-forwarded-for: 2001:db8::1,10.0.0.9",
            ],
            Some("2001:db8::1"),
        ),
        (PROXY, &[], None),
        (OTHER, &["X-Forwarded-For: 192.0.2.1"], None),
    ] {
        let mut device = connect(source, &bridge).await;
        assert_eq!(upgrade(&mut device, lines).await, 101);
        let expected: IpAddr = match expected {
            Some(ip) => ip.parse().unwrap(),
            None => source.into(),
        };
        assert_eq!(place(&bridge).ip(), expected, "{lines:?}");
    }
}

#[tokio::test]
async fn a_proxy_is_trusted_however_its_address_is_written() {
    for (network, is_trusted) in [
        ("127.0.0.2", true),
        ("127.0.0.2/32", true),
        ("127.0.0.3/8", true),
        ("::ffff:127.0.0.2", true),
        ("::ffff:127.0.0.2/128", true),
        ("::ffff:7f00:2/128", true),
        ("::ffff:127.0.0.0/104", true),
        ("::ffff:0:0/96", true),
        ("0.0.0.0/0", true),
        ("::ffff:127.0.0.3/128", false),
        ("::ffff:10.0.0.0/104", false),
        ("::127.0.0.2/128", false),
        ("::/0", false), // all of IPv6, and an IPv4 address is none
    ] {
        let bridge = start(config().trusted_proxies(vec![network.into()])).await;
        let mut device = connect(PROXY, &bridge).await;
        let line = "X-Forwarded-For: 192.0.2.1";
        assert_eq!(upgrade(&mut device, &[line]).await, 101);
        let expected = if is_trusted { "192.0.2.1" } else { "127.0.0.2" };
        assert_eq!(place(&bridge).ip().to_string(), expected, "{network}");
    }
}

#[tokio::test]
async fn what_is_no_plain_address_moves_nothing() {
    let trusted = vec!["127.0.0.2".into(), "10.0.0.0/8".into()];
    let bridge = start(config().trusted_proxies(trusted)).await;
    for (lines, expected) in [
        (&["X-Forwarded-For: 192.0.2.1:8080"][..], "192.0.2.1:8080"),
        (&["X-Forwarded-For: 192.0.2.1:0"], "192.0.2.1"),
        (&["X-Forwarded-For: [2001:db8::1]:80"], "[2001:db8::1]:80"),
        (&["X-Forwarded-For: [2001:db8::1]"], "2001:db8::1"),
        (&["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1"),
        (&["X-Forwarded-For: [::ffff:192.0.2.1]:80"], "192.0.2.1:80"),
        (
            &["X-Forwarded-For:   192.0.2.1\t ,  10.0.0.9 "],
            "192.0.2.1",
        ),
        (
            &["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1"],
            "192.0.2.1",
        ),
        (
            &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: "],
            "127.0.0.2",
        ),
        (&["X-Forwarded-For: 192.0.2.1,"], "127.0.0.2"),
        (&["X-Forwarded-For: 192.0.2.1, unknown"], "127.0.0.2"),
        (
            &["X-Forwarded-For: 192.0.2.1, _hidden, 10.0.0.9"],
            "10.0.0.9",
        ),
        (&["X-Forwarded-For: \"192.0.2.1\""], "127.0.0.2"),
        (&["X-Forwarded-For: 192.0.2.1:99999"], "127.0.0.2"),
        (&["X-Forwarded-For: 192.0.2.01"], "127.0.0.2"),
        (&["X-Forwarded-For: 3221225985"], "127.0.0.2"),
        (&["X-Forwarded-For: [192.0.2.1"], "127.0.0.2"),
        (&["X-Forwarded-For: fe80::1%eth0"], "127.0.0.2"),
        // Only one header is read; who trusts two is told the other one by devices.
        (&["Forwarded: for=192.0.2.1"], "127.0.0.2"),
        (&["X-Real-IP: 192.0.2.1"], "127.0.0.2"),
        (&["X-Forwarded-For : 192.0.2.1"], "400"),
    ] {
        let mut device = connect(PROXY, &bridge).await;
        let status = upgrade(&mut device, lines).await;
        if expected == "400" {
            assert_eq!(status, 400, "{lines:?}");
            continue;
        }
        let own = device.local_addr().to_string();
        let expected = if expected == "127.0.0.2" {
            &own
        } else {
            expected
        };
        assert_eq!(place(&bridge).to_string(), expected, "{lines:?}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_told_is_in_no_line_of_the_log() {
    let gateway = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    for (token, address) in [("dev4", "192.0.2.1"), ("dev6", "2001:db8::1")] {
        let mut device = RawDevice::connect(gateway.addr()).await;
        let line = format!("X-Forwarded-For: {address}");
        let request = RawDevice::upgrade_request(&format!("/?token={token}"), &[&line]);
        device.write(request).await;
        device.read_head().await;
        let is_it = |line: &serde_json::Value| {
            line["message"] == "Client connected" && line["client_id"] == token
        };
        let line = gateway.wait_line_where("it came", is_it).await;
        assert_eq!(line["remote_addr"], address);
        let mut nobody = RawDevice::connect(gateway.addr()).await;
        let line = format!("X-Forwarded-For: {address}");
        nobody
            .write(RawDevice::upgrade_request("/", &[&line]))
            .await;
        nobody.read_head().await;
        let is_it = |line: &serde_json::Value| {
            line["message"] == "Handshake refused" && line["remote_addr"] == address
        };
        gateway.wait_line_where("it was refused", is_it).await;
    }
}

#[tokio::test]
async fn a_limit_by_address_counts_devices_and_not_their_proxies() {
    let config = behind_proxy().limit_connections_per_ip(1usize);
    let bridge = start(config).await;
    let mut held = Vec::new();
    for (source, header, forwarded, status) in [
        (PROXY, V1, "", 101),
        (PROXY, V1, "", 429),
        (
            PROXY,
            &b"PROXY TCP4 192.0.2.2 192.0.2.9 1 80\r\n"[..],
            "",
            101,
        ),
        // The device of a second proxy, behind the first one.
        (
            PROXY,
            b"PROXY TCP4 127.0.0.2 192.0.2.9 1 80\r\n",
            "192.0.2.3",
            101,
        ),
        (
            PROXY,
            b"PROXY TCP4 127.0.0.2 192.0.2.9 1 80\r\n",
            "192.0.2.3",
            429,
        ),
        (OTHER, b"", "", 101),
        (OTHER, b"", "", 429),
    ] {
        let mut device = connect(source, &bridge).await;
        let _ = device.try_write(header).await;
        let lines = [format!("X-Forwarded-For: {forwarded}")];
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            upgrade(&mut device, if forwarded.is_empty() { &[] } else { &lines }).await,
            status,
            "{source} {forwarded}"
        );
        held.push(device);
    }
}

#[tokio::test]
async fn hooks_see_the_device_and_not_its_proxy() {
    #[derive(Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);
    impl Hooks for Seen {
        fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
            self.0.lock().push(request.remote_addr.to_string());
            Decision::Now(Admission::AsConfigured)
        }
    }
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let bridge = Bridge::builder(behind_proxy()).hooks(Seen(seen.clone()));
    let bridge = bridge.start().await.unwrap();
    let mut device = connect(PROXY, &bridge).await;
    device.write(V1).await;
    assert_eq!(upgrade(&mut device, &[]).await, 101);
    let forwarded = b"PROXY TCP4 127.0.0.2 192.0.2.9 1 80\r\n";
    let mut device = connect(PROXY, &bridge).await;
    device.write(forwarded).await;
    assert_eq!(
        upgrade(&mut device, &["X-Forwarded-For: 192.0.2.3"]).await,
        101
    );
    assert_eq!(*seen.lock(), ["192.0.2.1:4660", "192.0.2.3"]);
}

#[tokio::test]
async fn origins_are_checked_before_anything_else_about_the_device() {
    let config = config()
        .listen_origins(vec!["https://app.example".into()])
        .limit_connections_per_ip(100usize);
    let bridge = start(config).await;
    for (line, status) in [
        ("Origin: https://app.example", 101),
        ("Origin: HTTPS://APP.example", 101),
        ("Origin: https://app.example.evil.example", 403),
        ("Origin: http://app.example", 403),
        ("Origin: https://app.example:8443", 403),
        ("Origin: null", 403),
        ("Origin:", 403),
        ("X-Other: no origin, so no browser", 101),
    ] {
        let mut device = connect(OTHER, &bridge).await;
        assert_eq!(upgrade(&mut device, &[line]).await, status, "{line}");
    }
    let mut device = connect(OTHER, &bridge).await;
    device
        .write(RawDevice::upgrade_request(
            "/",
            &["Origin: https://evil.example"],
        ))
        .await;
    let head = device.read_head().await;
    assert!(
        head.starts_with("HTTP/1.1 403 "),
        "before the missing token: {head}"
    );
}

#[tokio::test]
async fn an_entry_of_origins_lets_in_the_pages_it_means() {
    const OWN: u16 = 101;
    for (entries, origins) in [
        (
            "https://*.example.com",
            &[
                ("https://a.example.com", OWN),
                ("https://a.b.example.com:443", OWN),
                ("HTTPS://A.EXAMPLE.COM", OWN),
                ("https://example.com", 403),
                ("https://evil-example.com", 403),
                ("https://a.example.com.evil.net", 403),
                ("https://evil.net/.example.com", 403),
                ("https://evil.net#.example.com", 403),
                ("https://evil.net?.example.com", 403),
                ("https://.example.com@evil.net", 403),
                ("https://a.example.com:8443", 403),
                ("http://a.example.com", 403),
                ("https://*.example.com", 403),
                ("https://.example.com", 403),
            ][..],
        ),
        (
            "HTTPS://App.Example.COM:443/",
            &[
                ("https://app.example.com", OWN),
                ("https://app.example.com:443", OWN),
                ("https://APP.example.com", OWN),
                ("https://app.example.com:80", 403),
                ("http://app.example.com:443", 403),
                ("app.example.com", 403),
                ("https://app.example.com.", 403),
            ],
        ),
        (
            "http://app.example:80, http://*.dev.example:8080/",
            &[
                ("http://app.example", OWN),
                ("http://app.example:80", OWN),
                ("http://x.dev.example:8080", OWN),
                ("http://x.dev.example", 403),
                ("http://dev.example:8080", 403),
            ],
        ),
        (
            "null",
            &[
                ("null", OWN),
                ("NULL", 403),
                ("https://null", 403),
                ("", 403),
            ],
        ),
        ("https://null", &[("https://null", OWN), ("null", 403)]),
        (
            "https://b\u{fc}cher.example,http://[::1]:3000",
            &[
                ("https://xn--bcher-kva.example", OWN),
                ("http://[::1]:3000", OWN),
                ("http://[0:0:0:0:0:0:0:1]:3000", OWN),
                ("https://bucher.example", 403),
            ],
        ),
    ] {
        let vars = [("FASTSOCK_LISTEN_ORIGINS", entries)];
        let configured = Config::from_vars(vars).unwrap();
        let bridge = start(config().listen_origins(configured.listen.origins)).await;
        for (origin, status) in origins {
            let mut device = connect(OTHER, &bridge).await;
            let line = format!("Origin: {origin}");
            let answered = upgrade(&mut device, &[&line]).await;
            assert_eq!(answered, *status, "{entries}: {line}");
        }
        let mut device = connect(OTHER, &bridge).await;
        let head = RawDevice::upgrade_request("/?token=dev1", &["Origin: https://~"]);
        let no_text = head.bytes().map(|b| if b == b'~' { 0xff } else { b });
        device.write(no_text.collect::<Vec<u8>>()).await;
        let head = device.read_head().await;
        assert!(head.starts_with("HTTP/1.1 403 "), "no text at all: {head}");
        let mut device = connect(OTHER, &bridge).await;
        let (origin, _) = origins[0];
        let twice = [&*format!("Origin: {origin}"), "Origin: https://evil.net"];
        assert_eq!(upgrade(&mut device, &twice).await, 400, "{entries}");
    }
}

#[tokio::test]
async fn settings_that_trust_nobody_or_nonsense_are_told() {
    let error = Bridge::builder(config().proxy_protocol(true))
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("FASTSOCK_TRUSTED_PROXIES"),
        "{error}"
    );
    for bad in ["10.0.0.0/33", "proxy.example", "10.0.0.1,,x"] {
        let error = Config::from_vars([("FASTSOCK_TRUSTED_PROXIES", bad)]).unwrap_err();
        assert!(
            error.to_string().starts_with("FASTSOCK_TRUSTED_PROXIES: "),
            "{error}"
        );
    }
    Config::from_vars([("FASTSOCK_TRUSTED_PROXIES", "10.0.0.1, ::1,2001:db8::/32")]).unwrap();
}

fn config() -> Config {
    support::loopback()
        .websocket_ping_interval(Duration::ZERO)
        .listen_addr(Some(Ipv4Addr::UNSPECIFIED.into()))
}

fn behind_proxy() -> Config {
    config()
        .trusted_proxies(vec![format!("{PROXY}/32")])
        .proxy_protocol(true)
}

async fn connect(source: Ipv4Addr, bridge: &Bridge) -> RawDevice {
    RawDevice::connect_from(source, bridge.local_addr()).await
}

/// Asks for an upgrade with more header lines. Returns the status.
async fn upgrade(device: &mut RawDevice, lines: &[&str]) -> u16 {
    let _ = device
        .try_write(RawDevice::upgrade_request("/?token=dev1", lines))
        .await; // it may be refused already
    let head = device.read_head().await;
    head[9..12].parse().unwrap()
}

/// Where the one device is.
fn place(bridge: &Bridge) -> RemoteAddr {
    bridge.clients()[0].remote_addr
}

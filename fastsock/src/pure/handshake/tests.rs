use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 8192,
    headers: 64,
    is_strict: false,
};
const GOOD: &str = "GET /?token=dev1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn parse(head: &str) -> Head {
    parse_within(head, &LIMITS)
}

fn parse_within(head: &str, limits: &HeadLimits) -> Head {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    super::parse(head.as_bytes(), limits, addr.into())
}

fn upgrade(head: &str) -> Upgrade {
    match parse(head) {
        Head::Upgrade(upgrade, length) => {
            assert_eq!(length, head.len());
            *upgrade
        }
        other => panic!("{other:?}"),
    }
}

fn status(head: &str) -> u16 {
    match parse(head) {
        Head::Refused(refusal, _) => refusal.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_101_is_byte_exact() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8(upgrade(GOOD).answer()).unwrap(), answer);
}

#[test]
fn tokens_are_read_as_the_original_read_them() {
    for (target, token) in [
        ("/?token=dev1", Some("dev1")),
        ("/token=dev1", Some("dev1")),
        ("/ws/path?a=b&token=dev1", Some("dev1")),
        ("/ws?token=dev1", Some("dev1")),
        ("/?token=a%20b+c", Some("a b c")),
        ("/?token=%e4%f6", Some("\u{fffd}\u{fffd}")),
        ("/?token=%F0%9F%94%8C", Some("🔌")),
        ("/?token=one&token=two", Some("one")),
        ("/?token=a%3Ab:c", Some("a:b:c")),
        ("/?token=100%", Some("100%")),
        ("/?%74oken=x", Some("x")),
        ("/token=x?y=1", Some("x?y=1")),
        ("/?token=", None),
        ("/?token=&token=x", None),
        ("/?Token=x", None),
        ("/", None),
    ] {
        assert_eq!(token_of(target).as_deref(), token, "{target}");
    }
}

#[test]
fn refusals_come_in_the_promised_order() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\x01\r\n\r\n".to_owned(), 400),
        (
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(9000)),
            431,
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)),
            431,
        ),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n".into(), 405),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".into(), 426),
        (GOOD.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (GOOD.replace("keep-alive, Upgrade", "keep-alive"), 400),
        (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (GOOD.replace("Version: 13", "Version: 8"), 426),
        (GOOD.replace("Host: h", "Host: h\r\nHost: h"), 400),
        (
            GOOD.replace("Host: h", "Host: h\r\nSec-WebSocket-Protocol: a b"),
            400,
        ),
    ] {
        assert_eq!(status(&head), expected, "{head}");
    }
    assert!(matches!(parse(&GOOD[..GOOD.len() - 2]), Head::Partial));
}

#[test]
fn an_old_request_is_taken_unless_the_settings_are_strict() {
    for old in [
        GOOD.replace("HTTP/1.1", "HTTP/1.0"),
        GOOD.replace("Host: h\r\n", ""),
        GOOD.replace("HTTP/1.1", "HTTP/1.0")
            .replace("Host: h\r\n", ""),
    ] {
        let answer = String::from_utf8(upgrade(&old).answer()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{old}");
        assert!(!upgrade(&old).is_own_origin("https://") || old.contains("Host"));
        let strict = HeadLimits {
            is_strict: true,
            ..LIMITS
        };
        match parse_within(&old, &strict) {
            Head::Refused(refusal, _) => assert_eq!(refusal.status, 400, "{old}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_subprotocol_that_is_no_token_is_chosen() {
    let offer = |list: &str| {
        upgrade(&GOOD.replace(
            "Host: h",
            &format!("Host: h\r\nSec-WebSocket-Protocol: {list}"),
        ))
    };
    let chosen = offer("fastsock-token.s3cret, chat, other");
    assert_eq!(chosen.subprotocol.as_deref(), Some("chat"));
    assert_eq!(
        chosen.request.credentials.subprotocol.as_deref(),
        Some("s3cret")
    );
    assert_eq!(offer("fastsock-token.s3cret").subprotocol, None);
}

#[test]
fn a_page_is_of_the_host_that_it_connects_to_or_foreign() {
    for (origin, host, is_own) in [
        ("https://gateway.example", "gateway.example", true),
        ("https://Gateway.example", "gateway.EXAMPLE:443", true),
        ("https://gateway.example:443", "gateway.example", true),
        ("https://gateway.example:8443", "gateway.example:8443", true),
        ("https://[::1]:8443", "[::1]:8443", true),
        ("https://gateway.example:8443", "gateway.example", false),
        ("https://gateway.example", "gateway.example:8443", false),
        ("https://evil.example", "gateway.example", false),
        (
            "https://gateway.example.evil.example",
            "gateway.example",
            false,
        ),
        (
            "https://evil.example/gateway.example",
            "gateway.example",
            false,
        ),
        (
            "https://gateway.example@evil.example",
            "gateway.example",
            false,
        ),
        ("https://evilgateway.example", "gateway.example", false),
        ("null", "null", false),
        ("gateway.example", "gateway.example", false),
        ("https://", "", false),
        ("", "gateway.example", false),
    ] {
        let upgrade = upgrade(&GOOD.replace("Host: h", &format!("Host: {host}")));
        assert_eq!(upgrade.is_own_origin(origin), is_own, "{origin} {host}");
    }
}

#[test]
fn one_credential_is_shown_in_one_way_or_there_is_a_fault() {
    let shown = |line: &str| {
        let head = GOOD.replace("Host: h", &format!("Host: h\r\n{line}"));
        upgrade(&head).request.credentials
    };
    for (line, bearer) in [
        ("Authorization: Bearer a.b", Some("a.b")),
        ("authorization:bEARER \t a b\t ", Some("a b")),
        ("Authorization: Bearer\tx", Some("x")),
        ("Authorization: Bearer a, Bearer b", Some("a, Bearer b")), // which no file and no key knows
        ("X: y", None),
    ] {
        let shown = shown(line);
        assert_eq!(shown.bearer.as_deref(), bearer, "{line}");
        assert!(shown.faults == Faults::default(), "{line}");
    }
    for (line, user, password) in [
        ("Authorization: Basic ZGV2MTp4", "dev1", &b"x"[..]),
        ("Authorization: bAsIc \t ZGV2MTp4 ", "dev1", b"x"),
        ("Authorization: Basic ZGV2MTo=", "dev1", b""),
        ("Authorization: Basic ZGV2MTo", "dev1", b""), // without its padding
        ("Authorization: Basic ZGV2MTphOmI6", "dev1", b"a:b:"),
        ("Authorization: Basic Q1A6/wA6", "CP", b"\xff\0:"),
        ("Authorization: Basic w6k6eA==", "é", b"x"),
    ] {
        let shown = shown(line);
        let basic = shown.basic.unwrap();
        assert_eq!((&*basic.user, &*basic.password), (user, password), "{line}");
        assert!(shown.faults == Faults::default(), "{line}");
    }
    for line in ["Authorization: x", "Authorization: Bearer,x y"] {
        let shown = shown(line);
        assert!(
            shown.bearer.is_none() && shown.faults.is_other_scheme,
            "{line}"
        );
    }
    for line in [
        "Authorization: Bearer a\r\nAuthorization: Bearer a",
        "Authorization: Bearer a\r\nX: y\r\nauthorization: Basic b",
        "Authorization: Bearer",
        "Authorization: Bearer \t ",
        "Authorization: ",
        "Authorization: Basic",
        "Authorization: Basic dev1:x",
        "Authorization: Basic ZGV2MQ==",     // no colon
        "Authorization: Basic OnNlY3JldA==", // no user
        "Authorization: Basic Og==",
        "Authorization: Basic /zp4", // a user that is no text
        "Authorization: Basic ZGV2MTp4 ZGV2MTp4",
        "Authorization: Basic ZGV2MTp4=",
        "Authorization: Basic ZGV2MTpB-_8=",
        "Authorization: \r\nAuthorization: Bearer a",
        "Sec-WebSocket-Protocol: fastsock-token.a, fastsock-token.a",
        "Sec-WebSocket-Protocol: fastsock-token.a\r\nSec-WebSocket-Protocol: fastsock-token.b",
        "Sec-WebSocket-Protocol: fastsock-token., chat",
    ] {
        assert!(shown(line).faults.headers.is_some(), "{line}");
        assert_eq!(shown(line).bearer, None, "{line}");
    }
    let head = GOOD.replace("Host: h", "Host: h\r\nAuthorization: Bearer \u{1}");
    let head: Vec<u8> = head
        .bytes()
        .map(|b| if b == 1 { 0xe9 } else { b })
        .collect();
    let Head::Upgrade(upgrade, _) = super::parse(
        &head,
        &LIMITS,
        std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
    ) else {
        panic!("it is a head");
    };
    assert!(upgrade.request.credentials.faults.headers.is_some());
    for (target, is_one) in [
        ("/", true),
        ("/?token=a", true),
        ("/token=a", true),
        ("/x?token=a&tokens=b", true),
        ("/?token=a&token=a", false),
        ("/?token=a&%74oken=b", false),
        ("/?token=&token=b", false),
        ("/token=a?token=b", false),
        ("/token=a&token=b", false),
    ] {
        assert_eq!(tokens_in(target) < 2, is_one, "{target}");
    }
}

#[test]
fn acknowledgements_are_chosen_wherever_they_are_offered_and_only_when_told_to() {
    let offer = |list: &str| {
        let field = format!("Host: h\r\nSec-WebSocket-Protocol: {list}");
        upgrade(&GOOD.replace("Host: h", &field))
    };
    for (list, without, with) in [
        (
            "chat, fastsock.v1.ack",
            Some("chat"),
            Some("fastsock.v1.ack"),
        ),
        ("fastsock.v1.ack", None, Some("fastsock.v1.ack")),
        (
            "fastsock.v1.ack, chat",
            Some("chat"),
            Some("fastsock.v1.ack"),
        ),
        (
            "fastsock.v1.ack, fastsock.v2.ack",
            None,
            Some("fastsock.v2.ack"),
        ),
        ("chat", Some("chat"), Some("chat")),
        (
            "fastsock.V1.ack",
            Some("fastsock.V1.ack"),
            Some("fastsock.V1.ack"),
        ),
    ] {
        let mut upgrade = offer(list);
        assert_eq!(upgrade.subprotocol.as_deref(), without, "{list}");
        assert_eq!(upgrade.form(), Form::Bare);
        upgrade.choose_ack();
        let form = match with {
            Some("fastsock.v1.ack") => Form::Envelope,
            Some("fastsock.v2.ack") => Form::Named,
            _ => Form::Bare,
        };
        assert_eq!(upgrade.form(), form);
        assert_eq!(upgrade.subprotocol.as_deref(), with, "{list}");
    }
}

#[test]
fn the_first_of_ours_that_is_offered_is_chosen() {
    let ours = ["ocpp2.0.1", "ocpp1.6"].map(str::to_owned);
    for (list, ack, chosen, is_understood) in [
        ("ocpp1.6, ocpp2.0.1", false, Some("ocpp2.0.1"), true),
        ("ocpp1.5, ocpp1.6", false, Some("ocpp1.6"), true),
        ("ocpp1.5", false, None, false),
        ("OCPP1.6", false, None, false),
        ("fastsock-token.x", false, None, true),
        ("fastsock-token.x, ocpp1.5", false, None, false),
        ("fastsock.v1.ack", false, None, true),
        ("fastsock.v1.ack, ocpp1.6", false, Some("ocpp1.6"), true),
        (
            "ocpp1.6, fastsock.v1.ack",
            true,
            Some("fastsock.v1.ack"),
            true,
        ),
        (
            "ocpp1.5, fastsock.v1.ack",
            true,
            Some("fastsock.v1.ack"),
            true,
        ),
    ] {
        let field = format!("Host: h\r\nSec-WebSocket-Protocol: {list}");
        let mut upgrade = upgrade(&GOOD.replace("Host: h", &field));
        if ack {
            upgrade.choose_ack();
        }
        assert_eq!(upgrade.choose_of(&ours), is_understood, "{list}");
        assert_eq!(upgrade.subprotocol(), chosen, "{list}");
    }
    let mut without = upgrade(GOOD);
    assert!(without.choose_of(&ours) && without.subprotocol().is_none());
    let mut first = upgrade(&GOOD.replace("Host: h", "Host: h\r\nSec-WebSocket-Protocol: b, a"));
    assert!(first.choose_of(&[]) && first.subprotocol() == Some("b"));
    // Whoever is asked may repeat what the device offers: without `choose_ack` that makes nobody acknowledge.
    for ack in ACKS {
        let field = format!("Host: h\r\nSec-WebSocket-Protocol: {ack}");
        let mut upgrade = upgrade(&GOOD.replace("Host: h", &field));
        assert!(upgrade.choose_of(&[ack.to_owned()]));
        assert_eq!((upgrade.subprotocol(), upgrade.form()), (None, Form::Bare));
    }
}

#[test]
fn a_refusal_closes_and_says_when_to_come_back() {
    let text = String::from_utf8(refusal(
        &Refusal::new(503, "full").with_retry_after(5),
        Extra::default(),
    ))
    .unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nfull"
    );
}

//! From the bytes of a request head to what the device shows, or to the refusal it gets; and the bytes of both answers.
//! RFC 6455 §4.2, RFC 9112. No I/O.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    config::device_path::is_token_byte,
    context::Parts,
    pure::{envelope, extensions::Deflated, kept::Form},
    remote_addr::RemoteAddr,
    types::{Basic, ConnectRequest, Credentials, Faults, Refusal},
};

/// What asks for acknowledgements, best first.
const ACKS: [&str; 2] = [envelope::SUBPROTOCOL_2, envelope::SUBPROTOCOL];

/// Bounds of a request head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) headers: usize,
    /// HTTP/1.1 and one `Host`, as RFC 9112 has it. Else HTTP/1.0 and a missing `Host` are taken too, as the original took them.
    pub(crate) is_strict: bool,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Head {
    /// Not all of a head yet.
    Partial,
    /// A WebSocket request; its head took so many bytes.
    Upgrade(Box<Upgrade>, usize),
    /// Something else: the answer, and whether it may have a body.
    Refused(Refusal, Extra),
}

/// A valid WebSocket request.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) request: ConnectRequest,
    accept: String,
    subprotocol: Option<String>,
    /// The best of `fastsock.v2.ack` and `fastsock.v1.ack` that it offers.
    offered_ack: Option<&'static str>,
    /// What is agreed on about compression.
    deflated: Option<Deflated>,
}

/// What a refusal needs beside status and body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// One more header line.
    pub(crate) header: Option<&'static str>,
    /// The request was a HEAD: no body in the answer.
    pub(crate) without_body: bool,
}

/// Reads what came so far. Checks in the order in which refusals are promised: size and syntax, method, upgrade, fields.
pub(crate) fn parse(bytes: &[u8], limits: &HeadLimits, remote_addr: RemoteAddr) -> Head {
    let mut headers = vec![httparse::EMPTY_HEADER; limits.headers];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > limits.bytes => {
            return refused(431, "Request Header Fields Too Large");
        }
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.bytes => {
            return refused(431, "Request Header Fields Too Large");
        }
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return refused(431, "Request Header Fields Too Large");
        }
        Err(_) => return refused(400, "Bad Request"),
    };
    let fields = Fields(request.headers);
    match request.method {
        Some("GET") => {}
        method => {
            let extra = Extra {
                header: Some("Allow: GET"),
                without_body: method == Some("HEAD"),
            };
            return Head::Refused(Refusal::new(405, "Method Not Allowed"), extra);
        }
    }
    if !fields.has_token("upgrade", "websocket") {
        return needs_upgrade("Upgrade: websocket");
    }
    match fields.check(request.version, limits.is_strict) {
        Ok(()) => {}
        Err(Mistake::Version) => return needs_upgrade("Sec-WebSocket-Version: 13"),
        Err(Mistake::Field(what)) => return refused(400, what),
    }
    let target = request.path.unwrap_or("/").to_owned();
    let Ok(offered) = fields.subprotocols() else {
        return refused(400, "bad Sec-WebSocket-Protocol");
    };
    let key = fields.only("sec-websocket-key").expect("checked above");
    let credentials = credentials(&fields, &offered, &target);
    let upgrade = Upgrade {
        accept: derive_accept_key(key),
        subprotocol: offered
            .iter()
            // A device that is told one of `ACKS` waits for acknowledgements: only `choose_ack` tells it.
            .find(|p| !p.starts_with(TOKEN_SUBPROTOCOL) && !ACKS.contains(p))
            .map(|p| (*p).to_owned()),
        deflated: None,
        offered_ack: ACKS.into_iter().find(|ack| offered.contains(ack)),
        request: ConnectRequest {
            headers: fields.owned(),
            target,
            remote_addr,
            credentials,
            parts: Parts::default(),
            client_id: None,
            route: None,
            subprotocols: offered
                .iter()
                .filter(|p| !p.starts_with(TOKEN_SUBPROTOCOL))
                .map(|p| (*p).to_owned())
                .collect(),
            certificate_names: None,
        },
    };
    Head::Upgrade(Box::new(upgrade), length)
}

/// What the device shows in its request. A certificate is known to who accepted the connection.
fn credentials(fields: &Fields<'_>, offered: &[&str], target: &str) -> Credentials {
    let mut faults = Faults::default();
    let (mut bearer, mut basic) = (None, None);
    match fields.authorization() {
        Authorization::Missing => {}
        Authorization::Bearer(token) => bearer = Some(token.to_owned()),
        Authorization::Basic(user) => basic = Some(Box::new(user)),
        Authorization::Other => faults.is_other_scheme = true,
        Authorization::Bad(fault) => faults.headers = Some(fault),
    }
    let mut tokens = offered
        .iter()
        .filter_map(|p| p.strip_prefix(TOKEN_SUBPROTOCOL));
    let subprotocol = tokens.next();
    if tokens.next().is_some() {
        faults.headers = Some("there are two tokens in Sec-WebSocket-Protocol");
    } else if subprotocol.is_some_and(str::is_empty) {
        faults.headers = Some("there is an empty token in Sec-WebSocket-Protocol");
    }
    if tokens_in(target) > 1 {
        faults.target = Some("there are two tokens in the request target");
    }
    Credentials {
        token: token_of(target),
        bearer,
        basic,
        subprotocol: subprotocol.map(str::to_owned),
        certificate: None,
        faults,
    }
}

impl Upgrade {
    /// The values of a header, in the order sent.
    pub(crate) fn fields(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let headers = self.request.headers.iter();
        headers
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether an Origin is a page of the host that the request is for.
    pub(crate) fn is_own_origin(&self, origin: &str) -> bool {
        let host = self.fields("host").next().unwrap_or_default();
        let of_origin = origin.split_once("://").map(|(_, host)| host);
        of_origin.is_some_and(|o| {
            !o.is_empty() && without_port(o).eq_ignore_ascii_case(without_port(host))
        })
    }

    /// Chooses `fastsock.v2.ack`, or else `fastsock.v1.ack`, if it is offered.
    pub(crate) fn choose_ack(&mut self) {
        if let Some(ack) = self.offered_ack {
            self.subprotocol = Some(ack.to_owned());
        }
    }

    /// Agrees on permessage-deflate, if the device offers it in a way that can be kept.
    pub(crate) fn choose_deflate(&mut self) {
        self.deflated = Deflated::choose(self.fields("sec-websocket-extensions"));
    }

    /// What is agreed on about it.
    pub(crate) fn deflated(&self) -> Option<Deflated> {
        self.deflated
    }

    /// How downlinks look to the device, by the subprotocol that is chosen.
    pub(crate) fn form(&self) -> Form {
        match self.subprotocol.as_deref() {
            Some(envelope::SUBPROTOCOL) => Form::Envelope,
            Some(envelope::SUBPROTOCOL_2) => Form::Named,
            _ => Form::Bare,
        }
    }

    /// Chooses the first of these that the device offers, unless it speaks one of `ACKS`; with none of these the choice stays.
    /// `false` when it offers some, and none of these.
    pub(crate) fn choose_of(&mut self, ours: &[String]) -> bool {
        if ours.is_empty() || self.form() != Form::Bare {
            return true;
        }
        let mut offered = self.request.subprotocols.iter();
        let chosen = ours.iter().find(|name| offered.clone().any(|o| o == *name));
        self.subprotocol = chosen.cloned();
        self.subprotocol.is_some() || offered.all(|o| ACKS.contains(&o.as_str()))
    }

    /// The subprotocol that the device is told.
    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The 101, byte for byte as firmware compares it.
    pub(crate) fn answer(&self) -> Vec<u8> {
        let mut answer = String::with_capacity(256);
        answer.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
        answer.push_str(&self.accept);
        if let Some(subprotocol) = &self.subprotocol {
            answer.push_str("\r\nSec-WebSocket-Protocol: ");
            answer.push_str(subprotocol);
        }
        if let Some(deflated) = self.deflated {
            answer.push_str("\r\nSec-WebSocket-Extensions: ");
            answer.push_str(&deflated.answer());
        }
        answer.push_str("\r\n\r\n");
        answer.into_bytes()
    }
}

/// The answer that refuses; the connection closes after it.
pub(crate) fn refusal(refusal: &Refusal, extra: Extra) -> Vec<u8> {
    let status = http::StatusCode::from_u16(refusal.status).unwrap_or(http::StatusCode::FORBIDDEN);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Type: text/plain\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused")
    );
    if let Some(seconds) = refusal.retry_after_s {
        answer.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    if let Some(header) = extra.header {
        answer.push_str(header);
        answer.push_str("\r\n");
    }
    answer.push_str(&format!("Content-Length: {}\r\n\r\n", refusal.reason.len()));
    if !extra.without_body {
        answer.push_str(&refusal.reason);
    }
    answer.into_bytes()
}

/// The token of a request target, as the original read it: the target without its first slash is a form, so that
/// `/?token=x` and `/token=x` both hold one; then, for any other path, the query. `None` when missing or empty.
pub(crate) fn token_of(target: &str) -> Option<String> {
    let bare = target.replacen('/', "", 1);
    let query = target.split_once('?').map(|(_, query)| query);
    first_token(bare.strip_prefix('?').unwrap_or(&bare))
        .or_else(|| first_token(query?))
        .filter(|token| !token.is_empty())
}

/// How many tokens there are in a request target: the first one counts where the token is a name, and none where it is a secret,
/// since something on the way may look at another.
fn tokens_in(target: &str) -> usize {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let count = |form: &str| {
        form_urlencoded::parse(form.as_bytes())
            .filter(|(name, _)| name == "token")
            .count()
    };
    let path = target.split('?').next().unwrap_or_default();
    count(path.strip_prefix('/').unwrap_or(path)) + count(query)
}

fn first_token(form: &str) -> Option<String> {
    form_urlencoded::parse(form.as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, value)| value.into_owned())
}

/// A host without the port that a browser leaves out.
fn without_port(host: &str) -> &str {
    let bare = host.strip_suffix(":443").or(host.strip_suffix(":80"));
    bare.unwrap_or(host)
}

/// The header fields of a request.
struct Fields<'a>(&'a [httparse::Header<'a>]);

/// What `Authorization` holds (RFC 9110 §11.6.2).
enum Authorization<'a> {
    Missing,
    /// A token.
    Bearer(&'a str),
    /// A user and a password.
    Basic(Basic),
    /// Something of another scheme.
    Other,
    Bad(&'static str),
}

enum Mistake {
    Version,
    Field(&'static str),
}

impl<'a> Fields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value)
    }

    /// The value of a field that must be there exactly once.
    fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The members of a comma-separated field, however often it is sent.
    fn members(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| std::str::from_utf8(value).unwrap_or("\0").split(','))
            .map(|member| member.trim_matches([' ', '\t']))
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.members(name)
            .any(|member| member.eq_ignore_ascii_case(token))
    }

    fn check(&self, version: Option<u8>, is_strict: bool) -> Result<(), Mistake> {
        if is_strict && version != Some(1) {
            return Err(Mistake::Field("HTTP/1.1 required"));
        }
        // Of two hosts, a proxy on the way may have looked at the other one.
        let hosts = self.all("host").count();
        if hosts > 1 || (is_strict && hosts == 0) {
            return Err(Mistake::Field("bad Host"));
        }
        if !self.has_token("connection", "upgrade") {
            return Err(Mistake::Field("bad Connection"));
        }
        if !self.only("sec-websocket-key").is_some_and(is_key) {
            return Err(Mistake::Field("bad Sec-WebSocket-Key"));
        }
        match self.only("sec-websocket-version") {
            Some(b"13") => Ok(()),
            _ => Err(Mistake::Version),
        }
    }

    fn subprotocols(&self) -> Result<Vec<&'a str>, ()> {
        self.members("sec-websocket-protocol")
            .filter(|p| !p.is_empty())
            .map(|p| {
                if p.bytes().all(is_token_byte) {
                    Ok(p)
                } else {
                    Err(())
                }
            })
            .collect()
    }

    fn authorization(&self) -> Authorization<'a> {
        let mut values = self.all("authorization");
        let Some(value) = values.next() else {
            return Authorization::Missing;
        };
        if values.next().is_some() {
            return Authorization::Bad("there are two Authorization headers");
        }
        let Ok(value) = std::str::from_utf8(value) else {
            return Authorization::Bad("Authorization is no text");
        };
        let white = [' ', '\t'];
        let value = value.trim_matches(white);
        let (scheme, token) = value.split_once(white).unwrap_or((value, ""));
        let token = token.trim_matches(white);
        if scheme.is_empty() {
            Authorization::Bad("Authorization is empty")
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic(token).map_or_else(Authorization::Bad, Authorization::Basic)
        } else if !scheme.eq_ignore_ascii_case("bearer") {
            Authorization::Other
        } else if token.is_empty() {
            Authorization::Bad("the bearer token is empty")
        } else {
            Authorization::Bearer(token)
        }
    }

    fn owned(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .map(|h| {
                (
                    h.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(h.value).into_owned(),
                )
            })
            .collect()
    }
}

/// User and password of `Authorization: Basic` (RFC 7617 §2). A user has no colon, so the first one ends it; a password is bytes.
fn basic(text: &str) -> Result<Basic, &'static str> {
    let text = text.as_bytes();
    let decoded = match text.ends_with(b"=") {
        true => data_encoding::BASE64.decode(text),
        false => data_encoding::BASE64_NOPAD.decode(text), // some stations leave the padding out
    };
    let decoded = decoded.map_err(|_| "Authorization: Basic holds no Base64")?;
    let colon = decoded.iter().position(|b| *b == b':');
    let (user, password) = decoded.split_at(colon.ok_or("Authorization: Basic has no colon")?);
    match std::str::from_utf8(user) {
        Ok("") => Err("the user of Authorization: Basic is empty"),
        Ok(user) => Ok(Basic::new(user, &password[1..])),
        Err(_) => Err("the user of Authorization: Basic is not UTF-8"),
    }
}

/// Base64 of 16 bytes (RFC 6455 §4.1). Bits that the last character does not use may be set: the value is only hashed.
fn is_key(value: &[u8]) -> bool {
    value.len() == 24
        && value.ends_with(b"==")
        && value[..22]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn refused(status: u16, reason: &str) -> Head {
    Head::Refused(Refusal::new(status, reason), Extra::default())
}

fn needs_upgrade(header: &'static str) -> Head {
    Head::Refused(
        Refusal::new(426, "Upgrade Required"),
        Extra {
            header: Some(header),
            without_body: false,
        },
    )
}

/// Carries a token where a browser can set no header; never echoed.
const TOKEN_SUBPROTOCOL: &str = "fastsock-token.";

#[cfg(test)]
mod tests {
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
        let mut first =
            upgrade(&GOOD.replace("Host: h", "Host: h\r\nSec-WebSocket-Protocol: b, a"));
        assert!(first.choose_of(&[]) && first.subprotocol() == Some("b"));
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
}

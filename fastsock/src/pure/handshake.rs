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
    /// `false` when it offers some, and none of these. One of `ACKS` among these is none: only `choose_ack` chooses it.
    pub(crate) fn choose_of(&mut self, ours: &[String]) -> bool {
        if ours.is_empty() || self.form() != Form::Bare {
            return true;
        }
        let mut offered = self.request.subprotocols.iter();
        let is_ack = |name: &String| ACKS.contains(&name.as_str());
        let chosen = ours
            .iter()
            .find(|&name| !is_ack(name) && offered.clone().any(|o| o == name));
        self.subprotocol = chosen.cloned();
        self.subprotocol.is_some() || offered.all(is_ack)
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
mod tests;

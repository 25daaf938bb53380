#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Handle,
};

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

use super::{post::retry_after, *};
#[cfg(feature = "tls")]
use crate::net::http::tests::Received;
use crate::{
    config::{Config, Headers, Secret},
    error::ErrorKind,
    net::http::tests::{Backend, Reply, status},
    types::{ClientId, SessionId},
};

fn start(config: &Config) -> Result<HttpForwarder> {
    let destination = Destination::of_uplinks(config).unwrap();
    HttpForwarder::new(&destination, Tasks::new(Handle::current()))
}

impl HttpForwarder {
    async fn attempt_one(&self, uplink: &Uplink, number: u32) -> Outcome {
        let outcomes = self.attempt(std::slice::from_ref(uplink), number).await;
        outcomes.into_iter().next().unwrap()
    }
}

fn forwarder(config: &Config) -> HttpForwarder {
    start(config).unwrap()
}

fn to(url: String) -> Config {
    Config::default().remote_url(Some(url))
}

fn uplink(payload: impl Into<Payload>) -> Uplink {
    let client_id = ClientId::new("dev1").unwrap();
    Uplink::new(client_id, SessionId(7), 3, payload.into())
}

fn remote_headers(json: &str) -> Headers {
    let mut config = Config::default();
    config.set("remote_headers", json).unwrap();
    config.remote.headers
}

const OK: Outcome = Outcome::Answered {
    status: 200,
    retry_after: None,
};

fn error_of(attempt: Outcome) -> String {
    match attempt {
        Outcome::Failed { error } => error,
        attempt => panic!("{attempt:?}"),
    }
}

#[test]
fn the_body_is_what_json_stringify_writes() {
    use UplinkBinary::{Base64, Lossy};
    for (client_id, payload, binary, expected) in [
        (
            "dev1",
            "hi".into(),
            Lossy,
            r#"{"client_id":"dev1","data":"hi"}"#,
        ),
        (
            "dev1",
            "".into(),
            Base64,
            r#"{"client_id":"dev1","data":""}"#,
        ),
        (
            "a\"\\/b",
            "\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}".into(),
            Lossy,
            "{\"client_id\":\"a\\\"\\\\/b\",\"data\":\"\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\"}",
        ),
        (
            "ü",
            "ж\u{2028}\u{2029}😀<>&".into(),
            Lossy,
            "{\"client_id\":\"ü\",\"data\":\"ж\u{2028}\u{2029}😀<>&\"}",
        ),
        (
            "d",
            vec![b'a', 0xff, b'b'].into(),
            Lossy,
            "{\"client_id\":\"d\",\"data\":\"a\u{fffd}b\"}",
        ),
        (
            "d",
            vec![b'a', 0xff, b'b'].into(),
            Base64,
            r#"{"client_id":"d","data":"Yf9i","encoding":"base64"}"#,
        ),
        (
            "d",
            "Text".into(),
            Base64,
            r#"{"client_id":"d","data":"Text"}"#,
        ),
    ] {
        let client_id = ClientId::new(client_id).unwrap();
        let uplink = Uplink::new(client_id, SessionId(7), 3, payload);
        assert_eq!(body(&uplink, binary), expected);
    }
}

#[test]
fn a_usual_body_is_one_allocation() {
    let text = "x".repeat(1000);
    let body: Vec<u8> = body(&uplink(text), UplinkBinary::Lossy).into();
    assert!(body.capacity() < 1000 + 100);
}

#[test]
fn retry_after_is_seconds_or_a_date_and_at_most_a_minute() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (text, seconds) in [
        ("0", Some(0)),
        ("7", Some(7)),
        (" 7 ", Some(7)),
        ("61", Some(60)),
        ("99999999999999999999999", Some(60)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
        ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
        ("Mon, 07 Nov 1994 08:49:37 GMT", Some(60)),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
    ] {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        let expected = seconds.map(Duration::from_secs);
        assert_eq!(retry_after(&headers, now), expected, "{text:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[tokio::test]
async fn the_request_is_the_originals_with_four_headers_more() {
    let mut backend = Backend::start(|_| status(200, "")).await;
    let forwarder = forwarder(&to(backend.url("/in?k=v")));
    let uplink = uplink("hi");
    assert_eq!(forwarder.attempt_one(&uplink, 2).await, OK);
    let received = backend.received().pop().unwrap();
    let expected = format!(
        "POST /in?k=v HTTP/1.1\r\n\
         Accept: application/json, text/plain, */*\r\n\
         Content-Type: application/json\r\n\
         User-Agent: fastsock/{}\r\n\
         Host: {}\r\n\
         Idempotency-Key: {}\r\n\
         X-Fastsock-Session: 7\r\n\
         X-Fastsock-Epoch: 0\r\n\
         X-Fastsock-Seq: 3\r\n\
         X-Fastsock-Attempt: 2\r\n\
         Content-Length: 32",
        env!("CARGO_PKG_VERSION"),
        backend.addr,
        uplink.id,
    );
    assert_eq!(received.head, expected);
    assert_eq!(received.body, r#"{"client_id":"dev1","data":"hi"}"#);
}

#[tokio::test]
async fn remote_headers_override_everything_but_the_framing() {
    let mut backend = Backend::start(|_| status(200, "")).await;
    let json = r#"{"content-type":"text/x","ACCEPT":null,"x-fastsock-seq":"mine","Host":"h","User-Agent":"u",
        "Content-Length":"1","Transfer-Encoding":"chunked","Authorization":"Bearer t","X-N":5,"X-B":true}"#;
    let url = format!("http://us%40er:p%3Aw@{}/", backend.addr);
    let config = to(url.clone()).remote_headers(remote_headers(json));
    assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
    let received = backend.received().pop().unwrap();
    for (name, value) in [
        ("Content-Type", Some("text/x")),
        ("Accept", None),
        ("X-Fastsock-Seq", Some("mine")),
        ("X-Fastsock-Attempt", Some("1")),
        ("Host", Some("h")),
        ("User-Agent", Some("u")),
        ("Content-Length", Some("32")),
        ("Transfer-Encoding", None),
        ("Authorization", Some("Bearer t")),
        ("X-N", Some("5")),
        ("X-B", Some("true")),
    ] {
        assert_eq!(received.header(name), value, "{name}");
    }

    let config = to(url).remote_extra_headers(false);
    assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
    let received = backend.received().pop().unwrap();
    assert!(!received.head.contains("X-Fastsock") && !received.head.contains("Idempotency"));
    // us@er:p:w
    assert_eq!(received.header("Authorization"), Some("Basic dXNAZXI6cDp3"));
}

#[tokio::test]
async fn a_connection_is_used_again_whatever_the_answer() {
    let mut backend = Backend::start(|request| match request.nth {
        1 => status(500, ""),
        2 => Reply::Say("HTTP/1.1 204 X\r\n\r\n".into()),
        3 => Reply::Say(
            "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".into(),
        ),
        4 => status(404, "retry-after: 9\r\n"),
        _ => status(200, ""),
    })
    .await;
    let forwarder = forwarder(&to(backend.url("/")));
    for expected in [500, 204, 200, 404, 200] {
        let attempt = forwarder.attempt_one(&uplink("hi"), 1).await;
        assert!(matches!(attempt, Outcome::Answered { status, .. } if status == expected));
    }
    assert_eq!((backend.received().len(), backend.connections()), (5, 1));
}

#[tokio::test]
async fn a_kept_connection_that_dies_unanswered_costs_nothing_once() {
    let mut backend = Backend::start(|request| match request.nth {
        1 => status(200, ""),
        _ => Reply::SayAndClose(String::new()),
    })
    .await;
    let forwarder = forwarder(&to(backend.url("/")));
    for _ in 0..5 {
        assert_eq!(forwarder.attempt_one(&uplink("hi"), 1).await, OK);
    }
    // Each connection took one request, and each but the last one more that it did not answer.
    assert_eq!((backend.received().len(), backend.connections()), (9, 5));
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_meanwhile_is_not_used() {
    let mut backend = Backend::start(|_| {
        Reply::SayAndClose("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n".into())
    })
    .await;
    let forwarder = forwarder(&to(backend.url("/")));
    for _ in 0..20 {
        assert_eq!(forwarder.attempt_one(&uplink("hi"), 1).await, OK);
    }
    assert_eq!(backend.received().len(), 20);
}

#[tokio::test]
async fn it_is_retried_once_and_only_before_a_byte_of_the_answer() {
    // The kept connection dies, and the new one too.
    let mut backend = Backend::start(|request| match (request.connection, request.nth) {
        (1, 1) => status(200, ""),
        _ => Reply::SayAndClose(String::new()),
    })
    .await;
    let doubtful = forwarder(&to(backend.url("/")));
    assert_eq!(doubtful.attempt_one(&uplink("hi"), 1).await, OK);
    let error = error_of(doubtful.attempt_one(&uplink("hi"), 1).await);
    assert!(error.starts_with(&backend.url(": ")), "{error}");
    assert_eq!(backend.received().len(), 3);

    // Half an answer came: the backend has the message.
    let mut backend = Backend::start(|request| match request.nth {
        1 => status(200, ""),
        _ => Reply::SayAndClose("HTTP/1.1 2".into()),
    })
    .await;
    let doubtful = forwarder(&to(backend.url("/")));
    assert_eq!(doubtful.attempt_one(&uplink("hi"), 1).await, OK);
    error_of(doubtful.attempt_one(&uplink("hi"), 1).await);
    assert_eq!(backend.received().len(), 2);
}

#[tokio::test]
async fn no_answer_in_time_is_a_failure_in_one_line() {
    for reply in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let backend = Backend::start(|_| Reply::SayAndHang(reply.to_owned())).await;
        let config = to(backend.url("/secret")).remote_timeout(Duration::from_millis(100));
        let error = error_of(forwarder(&config).attempt_one(&uplink("hi"), 1).await);
        assert_eq!(error, backend.url(": no answer in time"));
    }
}

#[tokio::test]
async fn an_answer_counts_once_its_head_is_here() {
    for rest in [
        "content-length: 9\r\n\r\nhal",
        "content-length: 99999999\r\n\r\n",
        "\r\nforever",
    ] {
        let mut backend =
            Backend::start(move |_| Reply::SayAndHang(format!("HTTP/1.1 200 X\r\n{rest}"))).await;
        let forwarder = forwarder(&to(backend.url("/")));
        for _ in 0..2 {
            assert_eq!(forwarder.attempt_one(&uplink("hi"), 1).await, OK);
        }
        assert_eq!((backend.received().len(), backend.connections()), (2, 2));
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_without_the_secrets_of_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let config = to(format!("http://user:pass@{addr}/path?key=k"));
    let error = error_of(forwarder(&config).attempt_one(&uplink("hi"), 1).await);
    assert!(error.starts_with(&format!("http://{addr}: ")), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
    for secret in ["user", "pass", "path", "key", "\n"] {
        assert!(!error.contains(secret), "{error}");
    }
}

/// Answers every request with a redirect to itself until so many have come.
async fn redirecting(times: usize) -> Backend {
    Backend::start(move |request| {
        if request.nth > times {
            return status(200, "");
        }
        status(307 + (request.nth % 2) as u16, "location: ../next?n=1\r\n")
    })
    .await
}

#[tokio::test]
async fn five_redirects_are_followed_with_method_body_and_headers() {
    let mut backend = redirecting(5).await;
    let config = to(backend.url("/a/b"))
        .remote_headers(remote_headers(r#"{"Authorization":"a","Cookie":"c"}"#));
    assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
    let received = backend.received();
    assert_eq!(received.len(), 6);
    for request in &received[1..] {
        assert_eq!(request.request_line(), "POST /next?n=1 HTTP/1.1");
        assert_eq!(request.body, received[0].body);
        for name in [
            "Authorization",
            "Cookie",
            "Host",
            "Idempotency-Key",
            "Content-Type",
        ] {
            assert_eq!(request.header(name), received[0].header(name), "{name}");
        }
    }

    let mut backend = redirecting(6).await;
    let sixth = forwarder(&to(backend.url("/")))
        .attempt_one(&uplink("hi"), 1)
        .await;
    assert!(matches!(sixth, Outcome::Redirected { status: 307 | 308 }));
    assert_eq!(backend.received().len(), 6);
}

#[tokio::test]
async fn what_is_no_repeatable_redirect_is_not_followed() {
    for (code, headers) in [
        (301, "location: /x\r\n"),
        (302, "location: /x\r\n"),
        (303, "location: /x\r\n"),
        (307, ""),
        (308, "location: ftp://h/\r\n"),
        (307, "location: http://\r\n"),
    ] {
        let mut backend = Backend::start(move |_| status(code, headers)).await;
        let attempt = forwarder(&to(backend.url("/")))
            .attempt_one(&uplink("hi"), 1)
            .await;
        assert_eq!(attempt, Outcome::Redirected { status: code });
        assert_eq!(backend.received().len(), 1);
    }
}

#[tokio::test]
async fn secrets_do_not_follow_a_redirect_to_elsewhere() {
    let mut elsewhere = Backend::start(|request| match request.nth {
        1 => status(307, "location: /again\r\n"),
        _ => status(200, ""),
    })
    .await;
    let location = format!("location: {}\r\n", elsewhere.url("/there"));
    let mut home = Backend::start(move |_| status(308, &location)).await;
    let json = r#"{"Cookie":"c","Proxy-Authorization":"p","X-Api-Key":"k","Accept":"a/b","Content-Type":"c/t","User-Agent":null}"#;
    let url = format!("http://user:pass@{}/", home.addr);
    let config = to(url).remote_headers(remote_headers(json));
    assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
    let sent = home.received().pop().unwrap();
    let secrets = [
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Api-Key",
    ];
    for name in secrets {
        assert!(sent.header(name).is_some(), "{name}");
    }
    let received = elsewhere.received();
    assert_eq!(received.len(), 2);
    for request in received {
        for name in secrets {
            assert_eq!(request.header(name), None, "{name}");
        }
        let host = elsewhere.addr.to_string();
        assert_eq!(request.header("Host"), Some(host.as_str()));
        assert_eq!(request.header("Accept"), Some("a/b"));
        assert_eq!(request.header("Content-Type"), Some("c/t"));
        assert_eq!(request.header("User-Agent"), None);
        assert_eq!(request.header("X-Fastsock-Seq"), Some("3"));
        assert_eq!(request.body, sent.body);
    }
}

#[tokio::test]
async fn retry_after_is_read_from_the_answer() {
    let backend = Backend::start(|_| status(503, "Retry-After: 7\r\n")).await;
    let attempt = forwarder(&to(backend.url("/")))
        .attempt_one(&uplink("hi"), 1)
        .await;
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(
        attempt,
        Outcome::Answered {
            status: 503,
            retry_after
        }
    );
}

#[tokio::test]
async fn an_http_remote_is_reached_through_its_proxy() {
    let mut proxy = Backend::start(|_| status(200, "")).await;
    let secret = Secret::new(format!("http://user:pass@{}", proxy.addr));
    let config = to("http://backend.invalid/in?k=v".into()).http_proxy(Some(secret));
    let through = forwarder(&config);
    for _ in 0..2 {
        assert_eq!(through.attempt_one(&uplink("hi"), 1).await, OK);
    }
    assert_eq!(proxy.connections(), 1);
    let received = proxy.received().pop().unwrap();
    assert_eq!(
        received.request_line(),
        "POST http://backend.invalid/in?k=v HTTP/1.1"
    );
    assert_eq!(received.header("Host"), Some("backend.invalid"));
    assert_eq!(
        received.header("Proxy-Authorization"),
        Some("Basic dXNlcjpwYXNz")
    );

    let mut backend = Backend::start(|_| status(200, "")).await;
    let config = config
        .remote_url(Some(backend.url("/direct")))
        .no_proxy(vec!["127.0.0.1".to_owned()]);
    assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
    assert!(proxy.received().is_empty());
    let received = backend.received().pop().unwrap();
    assert_eq!(received.request_line(), "POST /direct HTTP/1.1");
    assert_eq!(received.header("Proxy-Authorization"), None);
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let mut backend = Backend::start(|_| status(200, "")).await;
    let text = "ü\n".repeat(500_000);
    assert_eq!(
        forwarder(&to(backend.url("/")))
            .attempt_one(&uplink(text.as_str()), 1)
            .await,
        OK
    );
    let received = backend.received().pop().unwrap();
    let json: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(json["data"], text);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_message_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let tasks = Tasks::new(Handle::current());
    tasks.spawn_until_stopped(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_exact(&mut [0; 1000]).await.unwrap();
        let answer = "HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        while tcp.read(&mut [0; 65536]).await.is_ok_and(|n| n > 0) {}
    });
    let large = uplink("x".repeat(4 << 20));
    let attempt = forwarder(&to(url)).attempt_one(&large, 1).await;
    assert!(matches!(attempt, Outcome::Answered { status: 413, .. }));
    tasks.stop();
}

#[tokio::test]
async fn settings_it_cannot_use_are_named() {
    let config_error = |config: &Config| {
        let error = start(config).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert!(config_error(&to("http://a{b}/".into())).starts_with("REMOTE_URL: "));
    let bad = Headers(vec![("X A".into(), Some("v".into()))]);
    let error = config_error(&to("http://h/".into()).remote_headers(bad));
    assert!(error.starts_with("REMOTE_HEADERS: \"X A\""), "{error}");
}

#[cfg(feature = "tls")]
mod tls {
    use std::{io::Write, path::PathBuf, sync::Arc};

    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

    use super::*;

    /// A certificate for 127.0.0.1, and the PEM file of the authority that signed it.
    fn certificate() -> (TlsAcceptor, tempfile::TempPath) {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new([]).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(authority_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), file.into_temp_path())
    }

    async fn backend(
        reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> (Backend, tempfile::TempPath) {
        let (acceptor, authority) = certificate();
        let backend = Backend::start_with(reply, move |tcp| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(tcp).await.ok() }
        })
        .await;
        (backend, authority)
    }

    fn https(addr: SocketAddr) -> Config {
        to(format!("https://{addr}/in"))
    }

    #[tokio::test]
    async fn an_https_remote_is_trusted_by_the_given_authority_only() {
        let (mut backend, authority) = backend(|_| status(200, "")).await;
        let path = PathBuf::from(&*authority);
        for config in [
            https(backend.addr).remote_ca(Some(path.clone())),
            https(backend.addr).extra_ca_certs(Some(path)),
        ] {
            let forwarder = forwarder(&config);
            for _ in 0..2 {
                assert_eq!(forwarder.attempt_one(&uplink("hi"), 1).await, OK);
            }
        }
        assert_eq!((backend.received().len(), backend.connections()), (4, 2));
        let error = error_of(
            forwarder(&https(backend.addr))
                .attempt_one(&uplink("hi"), 1)
                .await,
        );
        assert!(
            error.contains("invalid peer certificate: UnknownIssuer"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_https_remote_is_tunnelled_through_its_proxy() {
        let (mut backend, authority) = backend(|_| status(200, "")).await;
        let addr = backend.addr;
        let mut proxy = Backend::start(move |_| Reply::Tunnel(addr)).await;
        let secret = Secret::new(format!("http://user:pass@{}", proxy.addr));
        let config = https(addr)
            .remote_ca(Some(authority.to_path_buf()))
            .https_proxy(Some(secret));
        let forwarder = forwarder(&config);
        for _ in 0..2 {
            assert_eq!(forwarder.attempt_one(&uplink("hi"), 1).await, OK);
        }
        let connect = proxy.received();
        assert_eq!(connect.len(), 1);
        assert_eq!(
            connect[0].request_line(),
            format!("CONNECT {addr} HTTP/1.1")
        );
        assert_eq!(
            connect[0].header("Proxy-Authorization"),
            Some("Basic dXNlcjpwYXNz")
        );
        let received = backend.received().pop().unwrap();
        assert_eq!(received.request_line(), "POST /in HTTP/1.1");
        assert_eq!(received.header("Proxy-Authorization"), None);
    }

    #[tokio::test]
    async fn a_refusing_proxy_is_named_as_the_cause() {
        let proxy = Backend::start(|_| status(407, "")).await;
        let config = to("https://backend.invalid/".into())
            .https_proxy(Some(Secret::new(format!("http://{}", proxy.addr))));
        let error = error_of(forwarder(&config).attempt_one(&uplink("hi"), 1).await);
        assert!(error.ends_with("proxy authorization required"), "{error}");
    }

    #[tokio::test]
    async fn secrets_do_not_leave_tls() {
        let mut plain = Backend::start(|_| status(200, "")).await;
        let location = format!("location: {}\r\n", plain.url("/"));
        let (_backend, authority) = backend(move |_| status(307, &location)).await;
        let config = https(_backend.addr)
            .remote_ca(Some(authority.to_path_buf()))
            .remote_headers(remote_headers(r#"{"X-Api-Key":"k"}"#));
        assert_eq!(forwarder(&config).attempt_one(&uplink("hi"), 1).await, OK);
        assert_eq!(plain.received().pop().unwrap().header("X-Api-Key"), None);
    }

    #[tokio::test]
    async fn a_handshake_that_hangs_is_cut_by_the_connect_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = https(listener.local_addr().unwrap())
            .remote_connect_timeout(Duration::from_millis(100));
        let error = error_of(forwarder(&config).attempt_one(&uplink("hi"), 1).await);
        assert!(error.ends_with(": no connection in time"), "{error}");
    }
}

/// 404 to everyone, as a deploy says it: whole batches are refused, and each message alone.
#[tokio::test]
async fn a_batch_is_halved_no_more_once_each_of_one_was_refused_alone() {
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_refused = refuses.clone();
    let backend = Backend::start(move |_| match is_refused.load(Relaxed) {
        true => status(404, ""),
        false => status(200, ""),
    })
    .await;
    let url = backend.url("/");
    let config = to(url)
        .remote_batch(4usize)
        .remote_batch_wait(Duration::from_secs(60));
    let forwarder = forwarder(&config);
    let mut backend = backend;
    // The first goes alone, since nothing is in flight; the others are a batch.
    let mut posts = async |number: u32| {
        let uplinks: Vec<_> = (0..5).map(|n| uplink(format!("{n}"))).collect();
        let attempts = uplinks
            .iter()
            .map(|uplink| forwarder.attempt_one(uplink, number));
        let attempts = futures_util::future::join_all(attempts).await;
        (backend.received().len(), attempts[4].status())
    };
    assert_eq!(posts(1).await, (1 + 7, Some(404)));
    assert_eq!(posts(2).await, (2, Some(404)), "neither halved nor smaller");
    assert_eq!(posts(3).await, (2, Some(404)));
    refuses.store(false, Relaxed);
    assert_eq!(posts(1).await, (2, Some(200)));
    refuses.store(true, Relaxed);
    assert_eq!(posts(1).await, (1 + 7, Some(404)), "that was long ago");
}

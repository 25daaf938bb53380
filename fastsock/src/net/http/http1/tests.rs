//! What is made of answers, in whatever pieces they come.

use std::time::Duration;

use http::Method;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::net::http::tests::target;

/// What is made of these bytes when they come in pieces of so many, and whether the connection can be used again.
async fn answer(bytes: &str, piece: usize, is_closed: bool) -> (Result<Answer, Failure>, bool) {
    let (ours, mut theirs) = duplex(piece);
    let opened = Opened {
        io: Box::new(TokioIo::new(ours)),
        is_proxied: false,
        #[cfg(feature = "tls")]
        is_http2: false,
    };
    let mut http1 = Http1::new(opened, Instant::now() + IDLE_TIMEOUT);
    let serve = async {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\nx") {
            theirs.read_buf(&mut asked).await.unwrap();
        }
        let _ = theirs.write_all(bytes.as_bytes()).await; // the rest may not be read
        (!is_closed).then_some(theirs)
    };
    let target = target("http://h/");
    let request = Request {
        method: &Method::POST,
        to: &target,
        fields: &|_| HeaderMap::new(),
        body: &"x".into(),
    };
    let soon = Instant::now() + Duration::from_secs(20);
    let exchange = async {
        let answer = http1.exchange(&request, Wanted::OfOk(9), soon).await;
        let is_ready = http1.is_ready();
        drop(http1);
        (answer, is_ready)
    };
    tokio::join!(exchange, serve).0
}

#[tokio::test]
async fn an_answer_ends_where_its_head_says_in_whatever_pieces_it_comes() {
    let (ok, kept, open) = (Some("ok"), true, false);
    let (no_body, given_up, closed) = (Some(""), None, true);
    for (rest, is_closed, body, is_ready) in [
        ("200 X\r\nContent-Length: 2\r\n\r\nok", open, ok, kept),
        ("200 X\r\ncontent-length: 2, 2\r\n\r\nok", open, ok, kept),
        ("200 X\r\ncontent-length: 0\r\n\r\n", open, no_body, kept),
        ("204 X\r\ncontent-length: 5\r\n\r\n", open, no_body, kept),
        (
            "304 X\r\ntransfer-encoding: chunked\r\n\r\n",
            open,
            no_body,
            kept,
        ),
        ("500 X\r\ncontent-length: 2\r\n\r\nok", open, no_body, kept),
        (
            "200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
            open,
            ok,
            kept,
        ),
        (
            "200 X\r\ntransfer-encoding: gzip, Chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\nc: d\r\n\r\n",
            open,
            ok,
            kept,
        ),
        (
            "200 X\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
            open,
            ok,
            false,
        ),
        (
            "200 X\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            open,
            ok,
            false,
        ),
        ("200 X\r\n\r\nok", closed, ok, false),
        (
            "200 X\r\ntransfer-encoding: gzip\r\n\r\nok",
            closed,
            ok,
            false,
        ),
        ("101 X\r\nupgrade: x\r\n\r\n", open, no_body, false),
        (
            "200 X\r\ncontent-length: 5\r\n\r\nok",
            closed,
            given_up,
            false,
        ),
        ("200 X\r\ncontent-length: 10\r\n\r\n", open, given_up, false),
        (
            "200 X\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n",
            open,
            given_up,
            false,
        ),
        (
            "200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n",
            open,
            given_up,
            false,
        ),
        (
            "200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            closed,
            given_up,
            false,
        ),
        (
            "200 X\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            open,
            given_up,
            false,
        ),
    ] {
        for before in [
            "",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: </a>\r\n\r\n",
        ] {
            for piece in [1, 2, 7, 1 << 20] {
                let bytes = format!("{before}HTTP/1.1 {rest}");
                let (answer, is_kept) = answer(&bytes, piece, is_closed).await;
                let answer = answer.map_err(BoxError::from).unwrap();
                assert_eq!(answer.status.as_str(), &rest[..3], "{bytes:?}");
                let found = answer.body.as_deref();
                assert_eq!(found, body.map(str::as_bytes), "{bytes:?} {piece}");
                assert_eq!(is_kept, is_ready, "{bytes:?} {piece}");
            }
        }
    }
    let head = "HTTP/1.0 200 X\r\ncontent-length: 2\r\n";
    for (more, is_ready) in [("", false), ("connection: Keep-Alive\r\n", true)] {
        let (_, is_kept) = answer(&format!("{head}{more}\r\nok"), 1, false).await;
        assert_eq!(is_kept, is_ready, "{more:?}");
    }
    let head = "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok";
    let (_, is_kept) = answer(&format!("{head}{head}"), 1 << 20, false).await;
    assert!(!is_kept, "what comes behind an answer is nobody's");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_counts_by_its_status_in_whatever_pieces_it_comes() {
    let fields: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    for before in ["", "\r\n", go_on, early, &early.repeat(3)] {
        for piece in [1, 7, 12, 13, 1 << 20] {
            let (answer, is_kept) = answer(&format!("{before}{head}"), piece, true).await;
            let status = answer.ok().map(|answer| answer.status);
            assert_eq!(status, Some(StatusCode::OK), "{before:?} {piece}");
            assert!(!is_kept);
        }
    }
    for cut in ["HTTP/1.1 20", go_on, "nonsense of some length"] {
        assert!(answer(cut, 5, true).await.0.is_err(), "{cut:?}");
    }
}

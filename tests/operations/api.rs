//! The admin API: who is connected, how one device is doing, the gateway in one look, a trace of one device, and draining.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use support::{Backend, Device, Gateway, GatewayBuilder, Reply, call, eventually, get, within};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn devices_are_listed_by_name_page_by_page() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let mut devices = Vec::new();
    for name in ["b/1", "a2", "a1", "a3", "ü x"] {
        devices.push(Device::connect(gateway.addr(), name).await);
    }
    let list = async |query: &str| {
        let page = get(admin, &format!("/api/v1/clients{query}")).await.json();
        let clients = page["clients"].as_array().unwrap().clone();
        let names: Vec<_> = clients
            .iter()
            .map(|c| c["client_id"].as_str().unwrap().to_owned())
            .collect();
        (names, page["next"].as_str().map(str::to_owned), clients)
    };
    let (names, next, clients) = list("").await;
    assert_eq!(
        (names, next),
        (
            ["a1", "a2", "a3", "b/1", "ü x"].map(String::from).into(),
            None
        )
    );
    assert!(
        clients[0]["remote_addr"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert!(clients[0]["connected_ms"].as_u64() > Some(1_700_000_000_000));
    let (names, next, _) = list("?prefix=a&limit=2").await;
    assert_eq!(
        (names, next.as_deref()),
        (["a1", "a2"].map(String::from).into(), Some("a2"))
    );
    let (names, next, _) = list("?prefix=a&limit=2&after=a2").await;
    assert_eq!((names, next), (vec!["a3".to_owned()], None));
    let (names, _, _) = list("?prefix=%C3%BC").await;
    assert_eq!(names, ["ü x"]);
    assert_eq!(get(admin, "/api/v1/clients?limit=0").await.status, 400);
    assert_eq!(
        call(admin, "POST", "/api/v1/clients", &[JSON], "{}")
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn one_device_is_told_whole_and_remembered_when_it_has_left() {
    let backend = Backend::start().await;
    let builder = alone().var("REMOTE_URL", backend.url());
    let gateway = builder.var("WEBSOCKET_PING_INTERVAL", "300").start().await;
    let admin = gateway.admin_addr();
    let path = "/api/v1/clients/dev%2F1";
    let unknown = get(admin, path).await.json();
    assert_eq!(
        (&unknown["presence"], &unknown["session"]),
        (&json!("offline"), &Value::Null)
    );
    assert_eq!(unknown["last_disconnect"], Value::Null);

    let device = Device::connect(gateway.addr(), "dev/1").await.attend();
    let here = get(admin, path).await.json();
    let session = &here["session"];
    assert_eq!(
        (&here["presence"], &session["protocol"]),
        (&json!("here"), &json!(""))
    );
    assert_eq!(
        (&session["last_uplink_ms"], &session["last_downlink_ms"]),
        (&Value::Null, &Value::Null)
    );
    device.send("hello").await;
    backend.wait_for(1).await;
    let answer = call(
        admin,
        "POST",
        &format!("{path}/messages"),
        &[JSON],
        r#"{"data":"hi"}"#,
    )
    .await;
    assert_eq!(answer.status, 200);
    device.wait_text("hi").await;
    let session = eventually("a pong", async || {
        let session = get(admin, path).await.json()["session"].clone();
        let is_whole = !session["last_pong_ms"].is_null() && !session["last_downlink_ms"].is_null();
        is_whole.then_some(session)
    })
    .await;
    let since = session["connected_ms"].as_u64().unwrap();
    for name in ["last_uplink_ms", "last_downlink_ms", "last_pong_ms"] {
        let at = session[name].as_u64().unwrap();
        assert!(at >= since && at < since + 60_000, "{name}: {session}");
    }
    assert!(session["round_trip_ms"].as_f64().unwrap() < 60_000.0);

    let kicked = call(admin, "DELETE", path, &[], "").await;
    assert_eq!(
        (kicked.status, &kicked.json()["status"]),
        (200, &json!("kicked"))
    );
    assert_eq!(device.wait_closed().await.code, Some(4510));
    let left = eventually("it has left", async || {
        let left = get(admin, path).await.json();
        (left["presence"] == "offline").then_some(left)
    })
    .await;
    let last = &left["last_disconnect"];
    assert_eq!(
        (&last["reason"], &last["code"]),
        (&json!("kicked"), &json!(4510))
    );
    assert_eq!(last["session_id"], session["session_id"]);
    assert!(last["left_ms"].as_u64() >= Some(since));
    assert_eq!(call(admin, "DELETE", path, &[], "").await.status, 404);
}

#[tokio::test]
async fn what_waits_for_the_backend_is_told_of_its_device_and_of_the_gateway() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let gateway = alone().var("REMOTE_URL", backend.url()).start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("one").await;
    device.send("two").await;
    backend.wait_for(1).await;
    eventually("both wait", async || {
        let device = get(admin, "/api/v1/clients/dev1").await.json();
        device["uplinks_waiting"] == 2 && device["uplinks_waiting_bytes"].as_u64() > Some(2 * 128)
    })
    .await;
    let status = get(admin, "/api/v1/status").await.json();
    assert_eq!(
        (&status["state"], &status["devices"]),
        (&json!("running"), &json!(1))
    );
    assert_eq!(status["uplinks"]["held"], 2);
    assert!(status["uplinks"]["oldest_ms"].as_f64().unwrap() > 0.0);
    let remote = &status["destinations"][0];
    assert_eq!(
        (&remote["name"], &remote["breaker"], &remote["in_flight"]),
        (&json!("remote"), &json!("closed"), &json!(1))
    );
    assert_eq!(
        (&status["redis"], &status["spool"]["kind"]),
        (&Value::Null, &json!("memory"))
    );
}

#[tokio::test]
async fn each_limit_that_uplinks_can_come_to_is_told() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let data = TempDir::new().unwrap();
    let gateway = alone()
        .var("REMOTE_URL", backend.url())
        .var("FASTSOCK_REMOTE_CONCURRENCY", "2")
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_SPOOL_MAX_MESSAGES", "3")
        .var("FASTSOCK_DATA_DIR", data.path().to_string_lossy())
        .start()
        .await;
    let admin = gateway.admin_addr();
    let mut one = Device::connect(gateway.addr(), "dev1").await;
    let mut two = Device::connect(gateway.addr(), "dev2").await;
    one.send("a").await;
    one.send("b").await;
    two.send("c").await;
    // Small messages: the spool is full of them long before its bytes are.
    eventually("the fullest come first", async || {
        let status = get(admin, "/api/v1/status").await.json();
        let limits = status["limits"].as_array().unwrap().iter();
        let full: Vec<_> = limits
            .filter(|limit| limit["used"] == limit["limit"])
            .map(|limit| limit["name"].as_str().unwrap().to_owned())
            .collect();
        full == ["spool_max_messages", "remote_concurrency"]
    })
    .await;
    let said = gateway
        .wait_line_where("devices wait", |line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.starts_with("Devices are read no further") && line["count"] == 1
        })
        .await;
    assert_eq!(said["level"], "warn");
}

#[tokio::test]
async fn a_trace_tells_what_becomes_of_one_device() {
    let backend = Backend::start().await;
    backend.queue([Reply::new(503), Reply::ok()]);
    let builder = alone().var("REMOTE_URL", backend.url());
    let gateway = builder
        .var("FASTSOCK_DUPLICATE_POLICY", "reject")
        .start()
        .await;
    let admin = gateway.admin_addr();
    let mut plain = trace(admin, "?client_id=dev1").await;
    let mut whole = trace(admin, "?client_id=dev1&payloads=true").await;
    let _other = Device::connect(gateway.addr(), "dev2").await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    assert_eq!(
        Device::try_connect(gateway.addr(), "dev1")
            .await
            .err()
            .map(|r| r.status),
        Some(409)
    );
    device.send("hello <b>").await;
    backend.wait_for(2).await;
    let path = "/api/v1/clients/dev1/messages";
    call(
        admin,
        "POST",
        path,
        &[JSON],
        r#"{"data":"AP8=","encoding":"base64"}"#,
    )
    .await;
    device.recv().await;
    device.close(1000).await;
    for (events, with_payloads) in [(&mut plain, false), (&mut whole, true)] {
        let mut seen = Vec::new();
        let count = |seen: &[Value], name: &str| seen.iter().filter(|e| e["event"] == name).count();
        while count(&seen, "disconnected") < 1 || count(&seen, "post") < 2 {
            seen.push(
                within("an event", events.recv())
                    .await
                    .expect("the trace goes on"),
            );
        }
        assert!(seen.iter().all(|event| event["client_id"] == "dev1"));
        let of = |name: &str| {
            seen.iter()
                .filter(|e| e["event"] == name)
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of("connected").len(), 1);
        assert_eq!(of("refused")[0]["status"], 409);
        let uplink = &of("uplink")[0];
        assert_eq!(
            (&uplink["seq"], &uplink["bytes"], &uplink["is_text"]),
            (&json!(1), &json!(9), &json!(true))
        );
        let posts: Vec<_> = of("post")
            .iter()
            .map(|post| post["status"].as_u64())
            .collect();
        assert_eq!(posts, [Some(503), Some(200)]);
        assert!(
            of("post")[0]["error"].is_string() && of("post")[1]["took_ms"].as_f64() > Some(0.0)
        );
        let downlink = &of("downlink")[0];
        assert_eq!(
            (&downlink["bytes"], &downlink["outcome"]),
            (&json!(2), &json!("queued"))
        );
        let data = [&uplink["data"], &downlink["data"]];
        let expected = match with_payloads {
            true => [&json!("hello <b>"), &json!("AP8=")],
            false => [&Value::Null, &Value::Null],
        };
        assert_eq!(data, expected);
        assert_eq!(
            (
                &of("disconnected")[0]["reason"],
                &of("disconnected")[0]["code"]
            ),
            (&json!("closed_by_device"), &json!(1000))
        );
    }
    for bad in ["", "?client_id=", "?client_id=a&payloads=x", "?id=a"] {
        assert_eq!(
            get(admin, &format!("/api/v1/trace{bad}")).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_operator_drains_a_gateway_and_it_ends() {
    let mut gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for bad in [
        r#"{"window":"soon"}"#,
        r#"{"window":"2h"}"#,
        r#"{"windows":1}"#,
        "[",
    ] {
        assert_eq!(
            call(admin, "POST", "/api/v1/drain", &[JSON], bad)
                .await
                .status,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        call(admin, "POST", "/api/v1/drain", &[], "").await.status,
        415
    );
    let answer = call(
        admin,
        "POST",
        "/api/v1/drain",
        &[JSON],
        r#"{"window":"10ms"}"#,
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["window_ms"]),
        (202, &json!(10))
    );
    assert_eq!(device.closed().await.code, Some(1012));
    drop(device);
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_description_is_that_of_the_running_gateway() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let description = get(admin, "/api/v1/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    for (path, operations) in description["paths"].as_object().unwrap() {
        let real = path
            .replace("{client_id}", "dev1")
            .replace("{group}", "site-7")
            .replace("{id}", "019a0000-0000-7000-8000-000000000000");
        let described: Vec<_> = operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|k| *k != "parameters")
            .collect();
        for method in ["get", "post", "put", "patch", "delete"] {
            if path.ends_with("/trace") && method == "get"
                || path.ends_with("/drain") && method == "post"
            {
                continue; // tests above
            }
            let answer = call(admin, &method.to_uppercase(), &real, &[JSON], "{}").await;
            let is_described = described.iter().any(|known| *known == method);
            assert_eq!(answer.status != 405, is_described, "{method} {path}");
            if is_described {
                let status = answer.status.to_string();
                let known = &operations[method]["responses"][&status];
                assert!(
                    known.is_object(),
                    "{method} {path}: {status} is not described"
                );
            }
        }
    }
}

/// The events of a trace as they come; returns once it has begun.
async fn trace(admin: SocketAddr, query: &str) -> mpsc::UnboundedReceiver<Value> {
    let stream = TcpStream::connect(admin).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("/api/v1/trace{query}"))
        .header("host", admin.to_string())
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = within("the head", sender.send_request(request))
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["content-type"].to_str().unwrap()
        ),
        (200, "text/event-stream")
    );
    let mut body = response.into_body();
    let first = within("a sign of life", body.frame())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.into_data().unwrap(), ":\n\n");
    let (events, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (_sender, mut text) = (sender, String::new());
        while let Some(Ok(frame)) = body.frame().await {
            text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    let _ = events.send(serde_json::from_str(data).unwrap());
                }
            }
        }
    });
    received
}

fn alone() -> GatewayBuilder {
    let builder = Gateway::builder().var("FASTSOCK_BROKER", "embedded");
    builder.admin()
}

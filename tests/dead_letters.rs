//! Dead letters by the admin API and the command: what a backend refused for good is seen whole, delivered again, or dropped.

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{
    Answer, Backend, Device, Gateway, GatewayBuilder, Reply, TempRedis, call, eventually, get,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const LETTERS: &str = "/api/v1/dead-letters";

#[tokio::test]
async fn a_refused_uplink_is_a_dead_letter_that_shows_all_of_it() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev/1").await;
    device.send("hällo").await;
    device.send_binary(&b"\x00\xff"[..]).await;

    let lines = wait_letters(admin, 2).await;
    let outline = &lines[0];
    for (name, value) in [
        ("client_id", json!("dev/1")),
        ("reason", json!("rejected")),
        ("status", json!(400)),
        ("attempts", json!(1)),
        ("seq", json!(1)),
        ("bytes", json!(6)),
    ] {
        assert_eq!(outline[name], value, "{outline}");
    }
    assert_eq!(outline.get("data"), None, "a list is bounded: {outline}");
    let time = |name| outline[name].as_u64().unwrap();
    assert!(time("received_ms") <= time("first_attempt_ms"));
    assert!(time("first_attempt_ms") <= time("last_attempt_ms"));
    assert!(time("last_attempt_ms") <= time("given_up_ms"));

    let whole = get(admin, &path_of(outline)).await;
    let whole = (whole.status, whole.json());
    assert_eq!((whole.0, &whole.1["data"]), (200, &json!("hällo")));
    assert_eq!(whole.1.get("encoding"), None);
    assert_eq!(whole.1["headers"]["idempotency-key"], outline["id"]);
    assert_eq!(whole.1["headers"]["x-secret"], "***");
    let binary = get(admin, &path_of(&lines[1])).await.json();
    assert_eq!(
        (&binary["data"], &binary["encoding"]),
        (&json!("AP8="), &json!("base64"))
    );
}

#[tokio::test]
async fn a_replayed_letter_is_delivered_under_its_key_and_a_dropped_one_never() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for data in ["one", "two", "three"] {
        device.send(data).await;
    }
    let lines = wait_letters(admin, 3).await;

    let dropped = call(admin, "DELETE", &path_of(&lines[1]), &[], "").await;
    assert_eq!(
        (dropped.status, dropped.json()),
        (200, json!({"status": "dropped"}))
    );
    backend.answer_all(Reply::new(200));
    for line in [&lines[2], &lines[0]] {
        let replayed = replay(admin, line).await;
        assert_eq!(
            (replayed.status, replayed.json()),
            (200, json!({"status": "replayed"}))
        );
    }
    assert_eq!(backend.wait_delivered("dev1", 2).await, ["three", "one"]);
    let key = |request: &support::Received| {
        let headers = request.headers.iter();
        let mut keys = headers.filter(|(name, _)| name == "idempotency-key");
        keys.next().unwrap().1.clone()
    };
    let requests = backend.requests_of("dev1");
    assert_eq!(key(&requests[3]), lines[2]["id"]);
    assert_eq!(key(&requests[4]), lines[0]["id"]);

    assert_eq!(letters(admin, "").await["dead_letters"], json!([]));
    for line in &lines {
        let path = path_of(line);
        for answer in [
            get(admin, &path).await,
            replay(admin, line).await,
            call(admin, "DELETE", &path, &[], "").await,
        ] {
            assert_eq!(answer.status, 404, "{}", answer.text());
        }
    }
    // What the backend refuses again is a dead letter again.
    backend.answer_all(Reply::new(400));
    device.send("four").await;
    let lines = wait_letters(admin, 1).await;
    assert_eq!(replay(admin, &lines[0]).await.status, 200);
    backend.wait_for(7).await;
    assert_eq!(wait_letters(admin, 1).await[0]["id"], lines[0]["id"]);
}

#[tokio::test]
async fn letters_in_redis_are_seen_from_every_gateway() {
    let redis = TempRedis::new().await;
    let backend = refusing().await;
    let builder = || {
        on_disk(&backend)
            .var("FASTSOCK_BROKER", "redis")
            .var("REDIS_PORT", redis.port().to_string())
            .var("FASTSOCK_SPOOL", "redis")
    };
    let (one, other) = (builder().start().await, builder().start().await);
    let mut device = Device::connect(one.addr(), "dev1").await;
    device.send("one").await;
    device.send("two").await;
    let lines = wait_letters(one.admin_addr(), 2).await;
    let admin = other.admin_addr();
    assert_eq!(wait_letters(admin, 2).await, lines);
    let whole = get(admin, &path_of(&lines[0])).await.json();
    assert_eq!(
        (&whole["data"], &whole["status"]),
        (&json!("one"), &json!(400))
    );

    let dropped = call(admin, "DELETE", &path_of(&lines[0]), &[], "").await;
    assert_eq!(dropped.status, 200);
    backend.answer_all(Reply::new(200));
    assert_eq!(replay(admin, &lines[1]).await.status, 200);
    assert_eq!(backend.wait_delivered("dev1", 1).await, ["two"]);
    assert_eq!(
        letters(one.admin_addr(), "").await["dead_letters"],
        json!([])
    );
}

#[tokio::test]
async fn the_list_goes_page_by_page_in_the_order_of_receipt() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for n in 0..120 {
        device.send(format!("#{n}")).await;
    }
    wait_letters(admin, 120).await;
    let all = letters(admin, "?limit=1000").await;
    assert_eq!(all["next"], Value::Null);
    let all = all["dead_letters"].as_array().unwrap();
    let numbers: Vec<_> = all.iter().map(|l| l["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=120).collect::<Vec<_>>());

    let mut found = Vec::new();
    let mut next = String::new();
    let mut sizes = Vec::new();
    loop {
        let page = letters(admin, &format!("?limit=55&after={next}")).await;
        let lines = page["dead_letters"].as_array().unwrap();
        sizes.push(lines.len());
        found.extend(lines.clone());
        match page["next"].as_str() {
            Some(after) => next = after.into(),
            None => break,
        }
    }
    assert_eq!((sizes, &found), (vec![55, 55, 10], all));
    let short = letters(admin, "").await;
    assert_eq!(
        short["dead_letters"].as_array().unwrap().len(),
        100,
        "the default"
    );
}

#[tokio::test]
async fn bad_calls_are_refused_and_change_nothing() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("one").await;
    let line = wait_letters(admin, 1).await.remove(0);
    let path = path_of(&line);
    let replay = format!("{path}/replay");
    for (method, path, headers, status) in [
        ("POST", &*replay, &[][..], 415),
        ("POST", &replay, &[("content-type", "text/plain")], 415),
        ("GET", &replay, &[], 405),
        ("POST", &path, &[JSON], 405),
        ("DELETE", LETTERS, &[], 405),
        ("GET", "/api/v1/dead-letters?limit=0", &[], 400),
        ("GET", "/api/v1/dead-letters?limit=1001", &[], 400),
        ("GET", "/api/v1/dead-letters?after=dev1", &[], 400),
        ("GET", "/api/v1/dead-letters/dev1", &[], 400),
        ("GET", "/api/v1/dead-lettersx", &[], 404),
        ("DELETE", &path, &[("host", "evil.example")], 403),
    ] {
        let answer = call(admin, method, path, headers, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(wait_letters(admin, 1).await, [line]);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_token_is_asked_for() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).var("FASTSOCK_ADMIN_TOKEN", "s3cret");
    let gateway = gateway.start().await;
    let admin = gateway.admin_addr();
    for (method, path) in [
        ("GET", LETTERS.to_owned()),
        ("DELETE", format!("{LETTERS}/{UNKNOWN}")),
        ("POST", format!("{LETTERS}/{UNKNOWN}/replay")),
    ] {
        assert_eq!(call(admin, method, &path, &[JSON], "").await.status, 401);
        let headers = [JSON, ("authorization", "Bearer s3cret")];
        let answer = call(admin, method, &path, &headers, "").await;
        assert_eq!(answer.status, if method == "GET" { 200 } else { 404 });
    }
}

#[tokio::test]
async fn a_message_that_grew_too_old_is_as_young_as_its_replay() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    for spool in ["disk", "memory", "redis"] {
        backend.answer_all(Reply::new(503));
        let mut gateway = on_disk(&backend)
            .var("FASTSOCK_SPOOL", spool)
            .var("REDIS_PORT", redis.port().to_string())
            .var("FASTSOCK_REMOTE_MAX_AGE", "1000")
            .start()
            .await;
        let mut device = Device::connect(gateway.addr(), spool).await;
        device.send("old").await;
        let lines = wait_letters(gateway.admin_addr(), 1).await;
        assert_eq!(lines[0]["reason"], "too_old");
        backend.answer_all(Reply::new(200));
        assert_eq!(replay(gateway.admin_addr(), &lines[0]).await.status, 200);
        assert_eq!(backend.wait_delivered(spool, 1).await, ["old"]);
        assert_eq!(gateway.stop().await, Some(0));
    }
}

#[tokio::test]
async fn the_memory_spool_has_them_too_until_the_gateway_ends() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).without("FASTSOCK_SPOOL").start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("one").await;
    device.send("two").await;
    let lines = wait_letters(admin, 2).await;
    let whole = get(admin, &path_of(&lines[0])).await.json();
    assert_eq!(
        (&whole["data"], &whole["status"]),
        (&json!("one"), &json!(400))
    );
    assert_eq!(whole["headers"]["x-secret"], "***");
    let dropped = call(admin, "DELETE", &path_of(&lines[0]), &[], "").await;
    assert_eq!(dropped.status, 200);
    backend.answer_all(Reply::new(200));
    assert_eq!(replay(admin, &lines[1]).await.status, 200);
    assert_eq!(backend.wait_delivered("dev1", 1).await, ["two"]);
    assert_eq!(letters(admin, "").await["dead_letters"], json!([]));
    let path = format!("{LETTERS}/{UNKNOWN}");
    assert_eq!(get(admin, &path).await.status, 404);
}

#[tokio::test]
async fn the_command_lists_shows_replays_and_drops() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).var("FASTSOCK_ADMIN_TOKEN", "s3cret");
    let gateway = gateway.start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for n in 1..=4 {
        device.send(format!("say #{n}")).await;
    }
    let admin = gateway.admin_addr();
    let command = async |words: &str| {
        let command = Gateway::builder()
            .var("FASTSOCK_ADMIN_ADDR", admin.to_string())
            .var("FASTSOCK_ADMIN_TOKEN", "s3cret");
        let words = words.split(' ');
        let mut run = words.fold(command, GatewayBuilder::arg).launch();
        let code = run.exit_code().await;
        (code, run.stdout(), run.stderr())
    };
    let lines = eventually("four dead letters", async || {
        let (code, lines, errors) = command("dead-letters list").await;
        assert_eq!((code, errors), (Some(0), vec![]));
        (lines.len() == 4).then_some(lines)
    })
    .await;
    let ids: Vec<_> = lines.iter().map(|l| l.split(' ').next().unwrap()).collect();
    let expected = format!("{} dev1 rejected 400 1 attempt ", ids[0]);
    assert!(lines[0].starts_with(&expected), "{}", lines[0]);
    let (_, two, _) = command("dead-letters list --json --limit 2").await;
    let two: Vec<Value> = two.iter().map(|l| l.parse().unwrap()).collect();
    assert_eq!((two.len(), &two[1]["id"]), (2, &json!(ids[1])));

    let (code, page, _) = command(&format!("dead-letters show {}", ids[1])).await;
    assert_eq!(code, Some(0));
    assert!(page.contains(&"status: 400".into()), "{page:?}");
    assert_eq!(page.last().unwrap(), "say #2");
    let (_, whole, _) = command(&format!("dead-letters show --json {}", ids[1])).await;
    assert_eq!(whole[0].parse::<Value>().unwrap()["data"], "say #2");

    let (code, said, _) = command(&format!("dead-letters drop {}", ids[1])).await;
    assert_eq!((code, said), (Some(0), vec![format!("{} dropped", ids[1])]));
    let (code, said, errors) = command(&format!("dead-letters show {}", ids[1])).await;
    let error = format!("fastsock: there is no dead letter {}", ids[1]);
    assert_eq!((code, said, errors), (Some(1), vec![], vec![error]));

    backend.answer_all(Reply::new(200));
    let (code, said, _) = command(&format!("dead-letters replay {}", ids[3])).await;
    assert_eq!(
        (code, said),
        (Some(0), vec![format!("{} replayed", ids[3])])
    );
    assert_eq!(backend.wait_delivered("dev1", 1).await, ["say #4"]);
    let (code, said, _) = command("dead-letters replay --all --json").await;
    assert_eq!((code, said.len()), (Some(0), 2));
    assert_eq!(
        backend.wait_delivered("dev1", 3).await,
        ["say #4", "say #1", "say #3"]
    );

    backend.answer_all(Reply::new(400));
    device.send("five").await;
    eventually("another", async || {
        command("dead-letters list").await.1.len() == 1
    })
    .await;
    let (code, said, _) = command("dead-letters drop --all").await;
    assert_eq!((code, said.len()), (Some(0), 1));
    assert_eq!(
        command("dead-letters list").await,
        (Some(0), vec![], vec![])
    );
}

#[tokio::test]
async fn the_command_repeats_what_the_gateway_refuses() {
    let backend = refusing().await;
    let gateway = on_disk(&backend).var("FASTSOCK_ADMIN_TOKEN", "s3cret");
    let gateway = gateway.start().await;
    for (token, expected) in [
        (
            "",
            "fastsock: the bearer token of FASTSOCK_ADMIN_TOKEN is required".to_owned(),
        ),
        (
            "s3cret",
            format!("fastsock: there is no dead letter {UNKNOWN}"),
        ),
    ] {
        let mut run = Gateway::builder()
            .var("FASTSOCK_ADMIN_ADDR", gateway.admin_addr().to_string())
            .var("FASTSOCK_ADMIN_TOKEN", token)
            .arg("dead-letters")
            .arg("show")
            .arg(UNKNOWN)
            .launch();
        assert_eq!(run.exit_code().await, Some(1));
        assert_eq!(run.stderr(), [expected]);
    }
}

const UNKNOWN: &str = "019ac000-0000-7000-8000-000000000000";

/// A backend that refuses everything for good.
async fn refusing() -> Backend {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400));
    backend
}

fn on_disk(backend: &Backend) -> GatewayBuilder {
    Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_SPOOL_FSYNC", "interval")
        .var("FASTSOCK_DATA_DIR", "data")
        .var("REMOTE_HEADERS", r#"{"X-Secret":"s3cret"}"#)
        .var("REMOTE_URL", backend.url())
}

async fn letters(admin: SocketAddr, query: &str) -> Value {
    let answer = get(admin, &format!("{LETTERS}{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until there are so many. Their outlines. A spool in Redis may be connecting yet.
async fn wait_letters(admin: SocketAddr, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), async || {
        let answer = get(admin, &format!("{LETTERS}?limit=1000")).await;
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        let lines = answer.json()["dead_letters"].as_array().cloned();
        lines.filter(|lines| lines.len() == count)
    })
    .await
}

async fn replay(admin: SocketAddr, letter: &Value) -> Answer {
    let path = format!("{}/replay", path_of(letter));
    call(admin, "POST", &path, &[JSON], "").await
}

fn path_of(letter: &Value) -> String {
    format!("{LETTERS}/{}", letter["id"].as_str().unwrap())
}

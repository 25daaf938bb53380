//! `FASTSOCK_ROUTES`: devices that have a backend of their own, found by their path or subprotocol.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use data_encoding::{BASE64, HEXLOWER};
use fastsock::{
    Admission, Bridge, Client, Config, ConnectRequest, Decision, Hooks, MetricsFormat, Secret,
    SpoolKind, Ticket,
};
use ring::digest;
use serde_json::{Value, json};
use support::{
    Backend, DEADLINE, Device, Gateway, Received, Refused, Reply, TempRedis, eventually,
};

/// Settings on a free port of loopback.
fn config(routes: &Value, settings: &[(&str, &str)]) -> Config {
    let mut config = support::loopback();
    config.set("routes", &routes.to_string()).unwrap();
    for (name, value) in settings {
        config.set(name, value).unwrap();
    }
    config
}

async fn start(config: Config) -> Bridge {
    Bridge::builder(config)
        .start()
        .await
        .expect("good settings")
}

async fn visit(
    bridge: &Bridge,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<Device, Refused> {
    Device::request(bridge.local_addr(), target, headers).await
}

/// The sample of a metric.
fn metric(bridge: &Bridge, sample: &str) -> u64 {
    let text = bridge.metrics(MetricsFormat::Text);
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.unwrap_or_else(|| panic!("no {sample} in {text}"));
    value.trim().parse::<f64>().unwrap() as u64
}

#[tokio::test]
async fn each_device_goes_the_way_of_its_path_or_its_subprotocol() {
    let (north, ocpp, rest) = (
        Backend::start().await,
        Backend::start().await,
        Backend::start().await,
    );
    ocpp.answer_all(Reply::ok().body("[3]"));
    let routes = json!([
        {
            "name": "north", "path": "/north/{site}/{id}", "client_id": "north/{site}/{id}",
            "remote": {"url": format!("http://{}/{{site}}/{{id}}", north.addr()), "body": "raw"},
            "remote_context": true, "remote_forward_headers": "X-Serial",
        },
        {"name": "ocpp", "subprotocol": "ocpp1.6", "remote_url": ocpp.url(), "remote_headers": {"X-Key": "ocpp"}, "remote_reply": "on"},
    ]);
    let headers = r#"{"X-Key":"rest"}"#;
    let bridge = start(config(
        &routes,
        &[("remote_url", &rest.url()), ("remote_headers", headers)],
    ))
    .await;

    let serial = [("x-serial", "7"), ("sec-websocket-protocol", "ocpp1.6")];
    let device = visit(&bridge, "/north/a%20b/CP1", &serial).await;
    device.unwrap().send("hi").await;
    let request = north.wait_for(1).await.remove(0);
    assert_eq!(request.target, "/a%20b/CP1");
    assert_eq!(&request.body[..], b"hi");
    for (name, value) in [
        ("x-fastsock-client-id", Some("north/a%20b/CP1")),
        ("x-fastsock-path", Some("/north/a%20b/CP1")),
        ("x-serial", Some("7")),
        ("x-key", None), // a secret of another backend
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }

    let offer = [("sec-websocket-protocol", "mqtt, ocpp1.6")];
    let mut device = visit(&bridge, "/?token=CP2", &offer).await.unwrap();
    assert_eq!(
        device.response_headers()["sec-websocket-protocol"],
        "ocpp1.6"
    );
    device.send("[2]").await;
    assert_eq!(device.recv_text().await, "[3]");
    let request = ocpp.wait_for(1).await.remove(0);
    assert_eq!(
        (&*request.client_id, request.header("x-key")),
        ("CP2", Some("ocpp"))
    );

    let mut device = visit(&bridge, "/any?token=CP3", &[]).await.unwrap();
    device.send("hi").await;
    let request = rest.wait_for(1).await.remove(0);
    assert_eq!(
        (&*request.client_id, request.header("x-key")),
        ("CP3", Some("rest"))
    );
    assert_eq!((north.count(), ocpp.count(), rest.count()), (1, 1, 1));

    eventually("all is counted", async || {
        bridge.stats().uplink.delivered == 3
    })
    .await;
    let status = serde_json::to_value(bridge.status()).unwrap();
    let destinations: Vec<_> = status["destinations"].as_array().unwrap().iter().collect();
    let names: Vec<_> = destinations.iter().map(|d| &d["name"]).collect();
    assert_eq!(names, ["remote", "north", "ocpp"]);
    for destination in destinations {
        assert_eq!(destination["posts_ok"], 1, "{destination}");
        assert_eq!(destination["uplinks"]["delivered"], 1, "{destination}");
    }
    assert_eq!(bridge.stats().counters.posts, 3);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn webhook_events_and_hooks_are_told_the_route() {
    let (backend, webhook, events) = (
        Backend::start().await,
        Backend::start().await,
        Backend::start().await,
    );
    webhook.answer(|request| {
        let asked = request.json();
        let client_id = asked["client_id"].as_str().unwrap_or("rest");
        Reply::ok().body(json!({"allow": true, "client_id": client_id}).to_string())
    });
    let routes = json!([{"name": "north", "path": "/north/{id}", "client_id": "north/{id}", "remote_url": backend.url()}]);
    let settings = [
        ("remote_url", &*backend.url()),
        ("events_url", &*events.url()),
        ("auth", "webhook"),
        ("auth_url", &*webhook.url()),
    ];
    let bridge = start(config(&routes, &settings)).await;
    let _north = visit(&bridge, "/north/CP1?token=a", &[]).await.unwrap();
    let _rest = visit(&bridge, "/?token=b", &[]).await.unwrap();
    let told = |requests: Vec<Received>| {
        let mut told: Vec<_> = requests.iter().map(|r| r.json()["route"].clone()).collect();
        told.sort_by_key(|route| route.is_null());
        told
    };
    assert_eq!(
        told(webhook.wait_for(2).await),
        [json!("north"), Value::Null]
    );
    assert_eq!(
        told(events.wait_for(2).await),
        [json!("north"), Value::Null]
    );
    bridge.stop(DEADLINE).await;

    struct Asked(Mutex<Vec<Option<String>>>);
    impl Hooks for Asked {
        fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
            self.0.lock().unwrap().push(request.route.clone());
            Decision::Now(Admission::AsConfigured)
        }
        fn on_connect(&self, client: &Client) {
            let context = client
                .context
                .as_ref()
                .expect("a route is something to know");
            self.0.lock().unwrap().push(context.route.clone());
        }
    }
    let hooks = Arc::new(Asked(Mutex::default()));
    let builder = Bridge::builder(config(&routes, &[]));
    let bridge = builder.shared_hooks(hooks.clone()).start().await.unwrap();
    let _device = visit(&bridge, "/north/CP1", &[]).await.unwrap();
    eventually("hooks are called", async || {
        hooks.0.lock().unwrap().len() == 2
    })
    .await;
    assert_eq!(
        *hooks.0.lock().unwrap(),
        [Some("north".into()), Some("north".into())]
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_backend_that_is_down_holds_up_its_own_devices_alone() {
    let (down, up) = (Backend::start().await, Backend::start().await);
    down.answer_all(Reply::new(503));
    let routes = json!([{"name": "down", "path": "/down/{id}", "client_id": "down/{id}", "remote_url": down.url()}]);
    // One attempt at once: were it common, the devices of the other route would wait.
    let settings = [
        ("remote_url", &*up.url()),
        ("remote_concurrency", "1"),
        ("auth", "open"),
    ];
    let bridge = start(config(&routes, &settings)).await;
    let mut devices = Vec::new();
    for n in 0..8 {
        let mut device = visit(&bridge, &format!("/down/{n}"), &[]).await.unwrap();
        device.send("hi").await;
        devices.push(device);
    }
    let sample = r#"fastsock_breaker_opened_total{destination="down"}"#;
    support::eventually_within(DEADLINE * 3, "the breaker opens", async || {
        metric(&bridge, sample) > 0
    })
    .await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    for n in 0..50 {
        device.send(n.to_string()).await;
    }
    up.wait_delivered("dev1", 50).await;
    assert_eq!(
        metric(
            &bridge,
            r#"fastsock_breaker_opened_total{destination="remote"}"#
        ),
        0
    );
    assert_eq!(
        metric(
            &bridge,
            r#"fastsock_route_uplinks_held{destination="down"}"#
        ),
        8
    );
    down.answer_all(Reply::ok());
    down.wait_until_within(DEADLINE * 3, "all are delivered", |all| {
        all.iter().filter(|r| r.is_delivered()).count() == 8
    })
    .await;
    let books = |destination: &str, result: &str| {
        let labels = format!(r#"{{destination="{destination}",result="{result}"}}"#);
        metric(&bridge, &format!("fastsock_route_uplinks_total{labels}"))
    };
    for (destination, count) in [("down", 8), ("remote", 50)] {
        eventually("the books are closed", async || {
            books(destination, "delivered") == count
        })
        .await;
        assert_eq!(books(destination, "received"), count);
        assert_eq!(books(destination, "lost"), 0);
    }
    let stats = bridge.stats().uplink;
    assert_eq!((stats.received, stats.delivered, stats.held), (58, 58, 0));
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_device_that_changes_its_way_keeps_its_order() {
    let (first, then) = (Backend::start().await, Backend::start().await);
    first.answer_all(Reply::new(503));
    let routes = json!([{"name": "then", "subprotocol": "then", "remote_url": then.url()}]);
    let bridge = start(config(&routes, &[("remote_url", &first.url())])).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("one").await;
    first.wait_for(1).await;
    let offer = [("sec-websocket-protocol", "then")];
    let mut device = visit(&bridge, "/?token=dev1", &offer).await.unwrap();
    device.send("two").await;
    eventually("both wait", async || bridge.stats().uplink.held == 2).await;
    assert_eq!(then.count(), 0);
    first.answer_all(Reply::ok());
    assert_eq!(then.wait_delivered("dev1", 1).await, ["two"]);
    assert_eq!(first.delivered("dev1"), ["one"]);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn each_route_lets_in_its_own_devices_and_nobody_gets_an_id_of_another() {
    let backend = Backend::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, user: &str, password: &str| {
        let path = dir.path().join(name);
        put(&path, user, password);
        path.to_str().unwrap().to_owned()
    };
    let (north, south) = (
        file("north", "north/CP1", "n"),
        file("south", "south/CP1", "s"),
    );
    let route = |name: &str, tokens: &str| {
        json!({
            "name": name, "path": format!("/{name}/{{id}}"), "client_id": format!("{name}/{{id}}"),
            "remote_url": backend.url(), "auth": "tokens", "auth_tokens_file": tokens,
        })
    };
    let routes = json!([route("north", &north), route("south", &south)]);
    let bridge = start(config(&routes, &[("remote_url", &backend.url())])).await;
    let basic = |password: &str| {
        format!(
            "Basic {}",
            BASE64.encode(format!("CP1:{password}").as_bytes())
        )
    };
    let status = async |target: &str, password: &str| {
        let shown = [("authorization", &*basic(password))];
        visit(&bridge, target, &shown)
            .await
            .map_err(|refused| refused.status)
    };
    assert_eq!(status("/north/CP1", "s").await.unwrap_err(), 401);
    assert_eq!(status("/south/CP1", "n").await.unwrap_err(), 401);
    assert_eq!(status("/north/CP2", "n").await.unwrap_err(), 403);
    let mut of_north = status("/north/CP1", "n").await.unwrap();
    let mut of_south = status("/south/CP1", "s").await.unwrap();
    let mut names: Vec<_> = bridge
        .clients()
        .iter()
        .map(|c| c.client_id.to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["north/CP1", "south/CP1"]);
    // The default way is open, and yet nobody there gets a name of theirs.
    for (token, expected) in [
        ("north/CP1", Some(403)),
        ("south/x", Some(403)),
        ("north", None),
    ] {
        let refused = Device::try_connect(bridge.local_addr(), token).await.err();
        assert_eq!(refused.map(|r| r.status), expected, "{token}");
    }
    // What one of them withdraws closes none of another's.
    let other = dir.path().join("other");
    put(&other, "north/CP2", "n");
    fs::rename(&other, dir.path().join("north")).unwrap();
    assert_eq!(of_north.closed().await.code, Some(4503));
    of_south.send("still here").await;
    backend.wait_delivered("south/CP1", 1).await;
    bridge.stop(DEADLINE).await;
}

fn put(path: &Path, user: &str, password: &str) {
    let hash = digest::digest(&digest::SHA256, password.as_bytes());
    fs::write(path, format!("{user} {}\n", HEXLOWER.encode(hash.as_ref()))).unwrap();
}

#[tokio::test]
async fn what_a_spool_has_goes_its_way_and_is_a_dead_letter_once_that_is_no_more() {
    let (default, north) = (Backend::start().await, Backend::start().await);
    let (redis, data) = (TempRedis::new().await, tempfile::tempdir().unwrap());
    let routes = json!([{"name": "north", "path": "/north/{id}", "client_id": "north/{id}", "remote_url": north.url()}]);
    let base = |routes: &Value| config(routes, &[("remote_url", &default.url())]);
    let on_disk = |routes: &Value| {
        let config = base(routes).spool(SpoolKind::Disk);
        config.data_dir(Some(data.path().to_owned()))
    };
    let in_redis = |routes: &Value| {
        let config = base(routes).spool(SpoolKind::Redis);
        config.redis_url(Some(Secret::new(redis.url())))
    };
    let kinds: [&dyn Fn(&Value) -> Config; 2] = [&on_disk, &in_redis];
    for with in kinds {
        for has_route in [true, false] {
            north.answer_all(Reply::new(503));
            let before = north.count();
            let bridge = start(with(&routes)).await;
            let mut device = visit(&bridge, "/north/CP1", &[]).await.unwrap();
            device.send("hi").await;
            north.wait_for(before + 1).await;
            bridge.stop(DEADLINE).await;
            north.answer_all(Reply::ok());
            let before = north.count();
            if has_route {
                let bridge = start(with(&routes)).await;
                north
                    .wait_until("it is delivered", |all| {
                        all.last().is_some_and(Received::is_delivered)
                    })
                    .await;
                bridge.stop(DEADLINE).await;
                continue;
            }
            let bridge = start(with(&json!([]))).await;
            let letter = eventually("it is a dead letter", async || {
                let letters = bridge.dead_letters(None, 10).await;
                letters.ok()?.pop() // its spool may still be away
            })
            .await;
            let told = serde_json::to_value(&letter).unwrap();
            assert_eq!(
                (&told["route"], &told["reason"]),
                (&json!("north"), &json!("rejected"))
            );
            assert_eq!(told["error"], "the route of this message is no more");
            bridge.stop(DEADLINE).await;
            assert_eq!((north.count(), default.count()), (before, 0));
            // It can still be delivered once the route is back.
            let bridge = start(with(&routes)).await;
            eventually("it is replayed", async || {
                let replayed = bridge.replay_dead_letter(letter.uplink.id).await;
                replayed.is_ok_and(|was_there| was_there)
            })
            .await;
            north.wait_for(before + 1).await;
            bridge.stop(DEADLINE).await;
        }
    }
}

#[tokio::test]
async fn without_a_default_route_a_stranger_gets_404() {
    let backend = Backend::start().await;
    let routes = json!([{"name": "only", "path": "/only/{id}", "remote_url": backend.url()}]);
    let bridge = start(config(&routes, &[])).await;
    for target in ["/?token=dev1", "/", "/only", "/only/a/b", "/only/.."] {
        let refused = visit(&bridge, target, &[]).await.unwrap_err();
        assert_eq!(refused.status, 404, "{target}");
    }
    let mut device = visit(&bridge, "/only/dev1", &[]).await.unwrap();
    device.send("hi").await;
    backend.wait_delivered("dev1", 1).await;
    bridge.stop(DEADLINE).await;
}

/// A file as docs/routes.md has it.
fn toml(backend: &Backend) -> String {
    let url = backend.url();
    format!(
        "redis_prefix = \"r\"\n[[route]]\nname = \"north\"\npath = \"/north/{{id}}\"\nremote_url = \"{url}\"\n\
         [route.remote]\nheaders = {{ Authorization = \"Bearer s3cret\" }}\nbatch = 10\n\
         [[route]]\nname = \"south\"\nsubprotocol = \"ocpp1.6\"\nremote_url = \"http://127.0.0.1:1/\"\n"
    )
}

#[tokio::test]
async fn the_gateway_takes_them_from_toml_checks_and_prints_them() {
    let backend = Backend::start().await;
    let gateway = |args: &[&str]| {
        let mut gateway = Gateway::builder().without("REMOTE_URL");
        for arg in ["--config", "fastsock.toml"].iter().chain(args) {
            gateway = gateway.arg(*arg);
        }
        gateway.file("fastsock.toml", toml(&backend))
    };
    let running = gateway(&[]).start().await;
    let mut device = Device::request(running.addr(), "/north/CP1", &[])
        .await
        .unwrap();
    device.send("hi").await;
    let request = backend.wait_for(1).await.remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    drop(running);

    let output = async |args: &[&str]| {
        let mut gateway = gateway(args).launch();
        gateway.exit_code().await;
        gateway.stdout()
    };
    for form in ["env", "toml"] {
        let printed = output(&[&format!("--print-config={form}"), "--changed"])
            .await
            .join("\n");
        assert!(printed.contains("/north/{id}"), "{printed}");
        assert!(!printed.contains("s3cret"), "{printed}");
    }
    let checked = output(&["--check"]).await;
    for begin in [
        "remote: none; a device that matches no route gets 404",
        "route north: remote: http://",
        "route south: remote: http://127.0.0.1:1/ cannot be connected to",
    ] {
        assert!(
            checked.iter().any(|line| line.starts_with(begin)),
            "{begin}: {checked:?}"
        );
    }
}

//! What one gateway knows of all: the gateways, where a device is, who is connected, and closing a session elsewhere.

use std::{collections::BTreeMap, time::Duration};

use fastsock::{ClientId, CloseReason, Presence};
use serde_json::{Value, json};
use support::{
    Device, Gateway, GatewayBuilder, TempRedis, call, eventually, eventually_within, get,
};

use super::{fleet, has_clients};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_lists_all_and_knows_when_one_drains_and_dies() {
    let redis = TempRedis::new().await;
    let a = start(&redis, "a").await;
    let mut b = start(&redis, "b").await;
    let _devices = fleet(&b, 0..3).await;
    let nodes = async || {
        let nodes = get(a.admin_addr(), "/api/v1/nodes").await.json();
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        nodes
            .into_iter()
            .map(|node| (node["name"].as_str().unwrap().to_owned(), node))
            .collect::<BTreeMap<_, _>>()
    };
    let of_b = eventually("b has told of its devices", async || {
        let node = nodes().await.remove("b")?;
        (node["connections"] == 3).then_some(node)
    })
    .await;
    let status = get(b.admin_addr(), "/api/v1/status").await.json();
    assert_eq!(
        (&of_b["node"], &status["name"]),
        (&status["node"], &json!("b"))
    );
    assert_eq!(of_b["version"], status["version"]);
    assert!(of_b["lease_age_ms"].as_u64() < Some(3_000), "{of_b}");
    assert!(
        of_b["since_ms"].as_u64() > Some(1_700_000_000_000),
        "{of_b}"
    );
    assert_eq!(
        (&of_b["this"], &of_b["draining"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(nodes().await["a"]["this"], true);

    let drain = json!({ "window": "1h" }).to_string();
    call(b.admin_addr(), "POST", "/api/v1/drain", &[JSON], drain).await;
    eventually("b has told that it drains", async || {
        nodes().await["b"]["draining"] == true
    })
    .await;
    b.kill();
    eventually_within(Duration::from_secs(15), "b is gone", async || {
        !nodes().await.contains_key("b")
    })
    .await;
    assert_eq!(redis.hgetall("fastsock:node:cards").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_found_asked_about_and_kicked_at_another_gateway() {
    for mode in super::MODES {
        let redis = TempRedis::new().await;
        let [a, b] = [
            named(&redis, "a")
                .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
                .start()
                .await,
            named(&redis, "b")
                .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
                .start()
                .await,
        ];
        for gateway in [&a, &b] {
            gateway.wait_line("Connected to Redis as subscriber").await;
            gateway.wait_line("Connected to Redis as publisher").await;
        }
        let there = Device::connect(b.addr(), "there/1").await.attend();
        let _here = Device::connect(a.addr(), "here").await.attend();
        has_clients(&redis, 2, support::DEADLINE).await;
        let path = "/api/v1/clients/there%2F1";
        let device = get(a.admin_addr(), path).await.json();
        let owner = redis.hget("fastsock:owner", "there/1").await.unwrap();
        let [node, session, epoch]: [&str; 3] =
            owner.split(':').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(
            (&device["presence"], &device["session"]),
            (&json!("elsewhere"), &Value::Null)
        );
        let at = &device["node"];
        assert_eq!((&at["id"], &at["name"]), (&json!(node), &json!("b")));
        assert_eq!(at["session_id"].to_string(), session);
        assert_eq!(at["epoch"].to_string(), epoch);

        let ids = json!({ "client_ids": ["there/1", "here", "nobody"] }).to_string();
        let asked = call(a.admin_addr(), "POST", "/api/v1/online", &[JSON], ids).await;
        let online = json!({ "online": { "there/1": true, "here": true, "nobody": false } });
        assert_eq!((asked.status, asked.json()), (200, online));

        let kicked = call(a.admin_addr(), "DELETE", path, &[], "").await;
        assert_eq!(
            (kicked.status, kicked.json()),
            (202, json!({ "status": "asked" }))
        );
        assert_eq!(there.wait_closed().await.code, Some(4510));
        redis.wait_no_field("fastsock:clients", "there/1").await;
        let nobody = call(a.admin_addr(), "DELETE", path, &[], "").await;
        assert_eq!(nobody.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_all_has_every_device_once_whichever_gateway_is_asked() {
    let redis = TempRedis::new().await;
    let [a, b] = [start(&redis, "a").await, start(&redis, "b").await];
    let _of_a = fleet(&a, 0..300).await;
    let _of_b = fleet(&b, 300..700).await;
    has_clients(&redis, 700, support::DEADLINE).await;
    let list = async |gateway: &Gateway, prefix: &str| {
        let (mut all, mut after) = (BTreeMap::new(), String::new());
        loop {
            let query = format!("scope=fleet&limit=50&prefix={prefix}&after={after}");
            let page = get(gateway.admin_addr(), &format!("/api/v1/clients?{query}"))
                .await
                .json();
            for row in page["clients"].as_array().unwrap() {
                let id = row["client_id"].as_str().unwrap().to_owned();
                let twice = all.insert(id, row["name"].as_str().unwrap().to_owned());
                assert_eq!(twice, None, "{row}");
            }
            match page["next"].as_str() {
                Some(next) => after = next.into(),
                None => return all,
            }
        }
    };
    for gateway in [&a, &b] {
        let all = list(gateway, "").await;
        assert_eq!(all.len(), 700);
        for (id, name) in &all {
            let number: u32 = id.trim_start_matches("dev").parse().unwrap();
            assert_eq!(name, if number < 300 { "a" } else { "b" }, "{id}");
        }
        assert_eq!(list(gateway, "dev29").await.len(), 11);
        assert!(list(gateway, "*").await.is_empty());
    }
    let bad = get(a.admin_addr(), "/api/v1/clients?scope=fleet&after=x:y").await;
    assert_eq!(bad.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_has_the_same_verbs_and_a_gateway_alone_answers_for_itself() {
    let redis = TempRedis::new().await;
    let [one, two] = [super::bridge(&redis).await, super::bridge(&redis).await];
    let mut device = Device::connect(two.local_addr(), "dev").await;
    has_clients(&redis, 1, support::DEADLINE).await;
    let ids = ["dev", "nobody"].map(|id| ClientId::new(id).unwrap());
    assert_eq!(one.are_online(&ids).await.unwrap(), [true, false]);
    assert_eq!(two.are_online(&ids).await.unwrap(), [true, false]);
    eventually("both are listed", async || {
        one.nodes().await.unwrap().len() == 2
    })
    .await;
    let reason = CloseReason::custom(4000, "maintenance").unwrap();
    let was = one.kick(&ids[0], reason.clone()).await.unwrap();
    assert_eq!(was, Presence::Elsewhere);
    let closed = device.closed().await;
    assert_eq!(
        (closed.code, closed.reason.as_str()),
        (Some(4000), "maintenance")
    );
    assert_eq!(one.kick(&ids[1], reason).await.unwrap(), Presence::Offline);

    let alone = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_ADMIN_ADDR", "127.0.0.1:0")
        .start()
        .await;
    let _device = Device::connect(alone.addr(), "dev").await.attend();
    let nodes = get(alone.admin_addr(), "/api/v1/nodes").await.json();
    let node = &nodes["nodes"][0];
    assert_eq!(
        (&node["this"], &node["connections"]),
        (&json!(true), &json!(1))
    );
    let port = format!(":{}", alone.addr().port());
    assert!(
        node["name"].as_str().unwrap().ends_with(&port),
        "host and port: {node}"
    );
    let lines = alone.lines();
    let ready = lines.iter().find(|line| line["admin"].is_string());
    assert_eq!(ready.unwrap()["node"], node["name"]);
    let all = get(alone.admin_addr(), "/api/v1/clients?scope=fleet")
        .await
        .json();
    assert_eq!(all["clients"][0]["client_id"], "dev");
}

async fn start(redis: &TempRedis, name: &str) -> Gateway {
    let gateway = named(redis, name).start().await;
    gateway.wait_line("Connected to Redis as publisher").await;
    gateway
}

fn named(redis: &TempRedis, name: &str) -> GatewayBuilder {
    Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_NODE_NAME", name)
        .var("FASTSOCK_ADMIN_ADDR", "127.0.0.1:0")
}

//! One message for many devices: groups and broadcasts, over Redis and without it.

use std::net::SocketAddr;

use fastsock::{
    Accepted, Admission, Bridge, BrokerKind, ClientId, Config, ConnectRequest, Decision, ErrorKind,
    Hooks, Payload, Sent, Stats, Subscribe, Ticket,
};
use serde_json::json;
use support::{
    Attended, Backend, DEADLINE, Device, Gateway, Reply, TempCluster, TempRedis, call, eventually,
    get,
};

/// Lets in who names itself `<id>,<group>,…`.
struct ByToken;

impl Hooks for ByToken {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        let token = request.credentials.token.clone().unwrap_or_default();
        let mut words = token.split(',').map(str::to_owned);
        let id = words.next().and_then(ClientId::new).expect("a name");
        let accepted = Accepted::new(id).groups(words.collect());
        Decision::Now(accepted.into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_to_a_group_reaches_its_members_on_all_gateways_and_nobody_else() {
    for mode in [Subscribe::Pattern, Subscribe::Exact, Subscribe::Sharded] {
        let redis = TempRedis::new().await;
        let config = || config(&redis).redis_subscribe(mode);
        let (one, two) = (start(config()).await, start(config()).await);
        let a = connect(&one, "a,site,all").await;
        let b = connect(&two, "b,site").await;
        let c = connect(&two, "c,other").await;
        // Each is listened to before the 101.
        assert_eq!(redis.publish("fastsock:group:site", "to site").await, 2);
        assert_eq!(redis.publish("fastsock:group:other", "to other").await, 1);
        assert_eq!(redis.publish("fastsock:group:nobody", "x").await, 0);
        assert_eq!(redis.publish("fastsock:broadcast", "to everyone").await, 2);
        assert_eq!(a.wait_texts(2).await, ["to site", "to everyone"]);
        assert_eq!(b.wait_texts(2).await, ["to site", "to everyone"]);
        assert_eq!(c.wait_texts(2).await, ["to other", "to everyone"]);
        // Once nobody here is in it, it is not listened to.
        drop(a);
        redis.wait_listeners("fastsock:group:all", 0).await;
        redis.wait_listeners("fastsock:group:site", 1).await;
        let stats = two.stats();
        balanced(&stats);
        let counters = stats.counters;
        assert_eq!((counters.group_messages, counters.broadcasts), (2, 1));
        assert_eq!(counters.group_downlinks, 4);
        assert_eq!(stats.downlink.received, 4);
        one.stop(DEADLINE).await;
        two.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_sends_to_groups_and_changes_them_on_every_gateway() {
    let redis = TempRedis::new().await;
    let (one, two) = (start(config(&redis)).await, start(config(&redis)).await);
    let a = connect(&one, "a").await;
    let b = connect(&two, "b").await;
    redis.wait_field("fastsock:owner", "b").await;
    assert_eq!(one.join_group(&id("a"), "g").await.unwrap(), Sent::Here);
    assert_eq!(redis.publish("fastsock:group:g", "1").await, 1);
    let joined = one.join_group(&id("b"), "g").await.unwrap();
    assert_eq!(joined, Sent::Elsewhere);
    redis.wait_listeners("fastsock:group:g", 2).await;
    assert_eq!(two.send_group("g", "2".into()).await.unwrap(), 2);
    assert_eq!(one.broadcast(Payload::binary(vec![51])).await.unwrap(), 2);
    assert_eq!(a.wait_texts(3).await, ["1", "2", "3"]);
    assert_eq!(b.wait_texts(2).await, ["2", "3"]);
    let left = one.leave_group(&id("b"), "g").await.unwrap();
    assert_eq!(left, Sent::Elsewhere);
    redis.wait_listeners("fastsock:group:g", 1).await;
    let nobody = one.join_group(&id("nobody"), "g").await.unwrap();
    assert_eq!(nobody, Sent::Offline);
    for bad in ["", "a\nb", &"x".repeat(257)] {
        let error = one.send_group(bad, "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument, "{bad:?}");
        let error = one.join_group(&id("a"), bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument, "{bad:?}");
    }
    one.stop(DEADLINE).await;
    two.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_alone_has_groups_too() {
    let config = support::loopback()
        .broker(BrokerKind::Embedded)
        .groups_per_device(2usize);
    let bridge = start(config).await;
    let a = connect(&bridge, "a,g").await;
    let b = connect(&bridge, "b").await;
    assert_eq!(bridge.send_group("g", "one".into()).await.unwrap(), 1);
    assert_eq!(bridge.send_group("h", "none".into()).await.unwrap(), 0);
    assert_eq!(bridge.broadcast("two".into()).await.unwrap(), 1);
    assert_eq!(a.wait_texts(2).await, ["one", "two"]);
    assert_eq!(b.wait_texts(1).await, ["two"]);
    for group in ["h", "h", "g"] {
        let joined = bridge.join_group(&id("a"), group).await.unwrap();
        assert_eq!(joined, Sent::Here);
    }
    let full = bridge.join_group(&id("a"), "i").await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Argument);
    let names: Vec<_> = bridge.groups().into_iter().map(|g| g.name).collect();
    assert_eq!(names, ["g", "h"]);
    // A takeover is in the groups of its own admission, and of no other.
    let again = connect(&bridge, "a,i").await;
    a.wait_closed().await;
    let names: Vec<_> = bridge.groups().into_iter().map(|g| g.name).collect();
    assert_eq!(names, ["i"]);
    assert_eq!(bridge.send_group("i", "three".into()).await.unwrap(), 1);
    again.wait_text("three").await;
    drop((again, b));
    eventually("nobody is in any", async || bridge.groups().is_empty()).await;
    balanced(&bridge.stats());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_there_are_none() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis).groups(false)).await;
    let a = connect(&bridge, "a,g").await;
    assert_eq!(redis.publish("fastsock:group:g", "x").await, 0);
    assert_eq!(redis.publish("fastsock:broadcast", "x").await, 0);
    let error = bridge.broadcast("x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(a.is_open());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_joins_and_leaves_what_it_may() {
    let redis = TempRedis::new().await;
    let allowed = vec!["news".to_owned(), "room-*".to_owned()];
    let config = config(&redis).ack(true).device_groups(allowed);
    let bridge = start(config).await;
    let mut device = v2(bridge.local_addr(), "dev").await;
    for (said, heard) in [
        (r#"{"join":"news"}"#, r#"{"joined":"news"}"#),
        (r#"{"join":"room-7"}"#, r#"{"joined":"room-7"}"#),
        (
            r#"{"join":"site"}"#,
            r#"{"not_joined":"site","reason":"not_allowed"}"#,
        ),
        (r#"{"leave":"room-7"}"#, r#"{"left":"room-7"}"#),
        (r#"{"leave":"never"}"#, r#"{"left":"never"}"#),
    ] {
        device.send(said).await;
        assert_eq!(device.recv_text().await, heard);
    }
    redis.wait_listeners("fastsock:group:news", 1).await;
    redis.wait_listeners("fastsock:group:room-7", 0).await;
    redis.publish("fastsock:group:news", "hello").await;
    assert_eq!(device.recv_text().await, r#"{"data":"hello"}"#);
    // With v1 these are no messages.
    let offer = [("sec-websocket-protocol", "fastsock.v1.ack")];
    let first = Device::request(bridge.local_addr(), "/?token=v1", &offer).await;
    let mut first = first.unwrap();
    first.send(r#"{"join":"news"}"#).await;
    assert_eq!(first.closed().await.code, Some(1002));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_survive_the_loss_of_the_links() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis)).await;
    let a = connect(&bridge, "a,g").await;
    redis.kill_clients("pubsub").await;
    redis.wait_listeners("fastsock:group:g", 1).await;
    redis.wait_listeners("fastsock:broadcast", 1).await;
    assert_eq!(redis.publish("fastsock:group:g", "back").await, 1);
    a.wait_text("back").await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_refuses_of_groups_leaves_the_rest_as_it_is() {
    let redis = TempRedis::new().await;
    let only = ["reset", "on", ">p", "+@all", "~*", "&fastsock:client:*"];
    let only = ["ACL", "SETUSER", "u"].into_iter().chain(only);
    let channels = ["&fastsock:control", "&fastsock:probe:*"];
    let words: Vec<_> = only.chain(channels).collect();
    redis.cmd::<()>(&words).await;
    let url = format!("redis://u:p@127.0.0.1:{}", redis.port());
    let gateway = Gateway::builder().var("FASTSOCK_REDIS_URL", url);
    let gateway = gateway.start().await;
    let lacking = "devices get no messages to groups, and no broadcasts: NOPERM";
    let refused = |line: &serde_json::Value| {
        let error = line["error"].as_str();
        error.is_some_and(|error| error.starts_with(lacking))
    };
    gateway.wait_line_where(lacking, refused).await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    assert_eq!(redis.publish("fastsock:client:dev", "mine").await, 1);
    device.wait_text("mine").await;
    redis
        .cmd::<()>(&["ACL", "SETUSER", "u", "allchannels"])
        .await;
    redis.wait_listeners("fastsock:broadcast", 1).await;
    redis.publish("fastsock:broadcast", "all").await;
    device.wait_text("all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_carries_them_as_well() {
    let cluster = TempCluster::new().await;
    let bridge = start(
        support::loopback()
            .broker(BrokerKind::Redis)
            .redis_url(Some(cluster.url().into())),
    )
    .await;
    let a = connect(&bridge, "a,g").await;
    cluster
        .cmd::<u64>(&["PUBLISH", "fastsock:group:g", "one"])
        .await;
    a.wait_text("one").await;
    bridge.broadcast("two".into()).await.unwrap();
    a.wait_text("two").await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_lists_changes_and_sends() {
    let webhook = Backend::start().await;
    let allow = json!({ "allow": true, "client_id": "dev", "groups": ["site/7"] });
    webhook.answer_all(Reply::ok().body(allow.to_string()));
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_AUTH", "webhook")
        .var("FASTSOCK_AUTH_URL", webhook.url());
    let gateway = gateway.start().await;
    let device = Device::connect(gateway.addr(), "x").await.attend();
    let admin = gateway.admin_addr();
    let json_type = [("content-type", "application/json")];
    let ask = async |method: &str, path: &str, body: &str| {
        let answer = call(admin, method, path, &json_type, body.to_owned()).await;
        (answer.status, answer.json())
    };
    let listed = get(admin, "/api/v1/groups").await.json();
    let one = json!({ "groups": [{ "name": "site/7", "members": 1 }], "next": null });
    assert_eq!(listed, one);
    let sent = ask(
        "POST",
        "/api/v1/groups/site%2F7/messages",
        r#"{"data":"1"}"#,
    )
    .await;
    assert_eq!(sent, (202, json!({ "gateways": 1 })));
    let member = "/api/v1/groups/new/members/dev";
    assert_eq!(
        ask("PUT", member, "").await,
        (200, json!({ "device": "here" }))
    );
    let page = get(admin, "/api/v1/groups?limit=1").await.json();
    assert_eq!(page["next"], "new");
    let raw = [("content-type", "application/octet-stream")];
    let sent = call(admin, "POST", "/api/v1/groups/new/messages", &raw, "2").await;
    assert_eq!(sent.status, 202);
    let sent = ask("POST", "/api/v1/broadcast", r#"{"data":"3"}"#).await;
    assert_eq!(sent, (202, json!({ "gateways": 1 })));
    assert_eq!(device.wait_texts(3).await, ["1", "2", "3"]);
    assert_eq!(ask("DELETE", member, "").await.0, 200);
    let nobody = "/api/v1/groups/new/members/nobody";
    let offline = (410, json!({ "device": "offline" }));
    assert_eq!(ask("PUT", nobody, "").await, offline);
    let kept = ask("POST", "/api/v1/broadcast", r#"{"data":"x","keep":true}"#).await;
    assert_eq!(kept.0, 400);
    for (method, path, status) in [
        ("GET", "/api/v1/broadcast", 405),
        ("POST", "/api/v1/groups", 405),
        ("GET", member, 405),
        ("PUT", "/api/v1/groups/a%0Ab/members/dev", 400),
        ("POST", "/api/v1/groups/a", 404),
        ("GET", "/api/v1/groupsx", 404),
    ] {
        let got = ask(method, path, r#"{"data":"x"}"#).await.0;
        assert_eq!(got, status, "{method} {path}");
    }
    let metrics = get(admin, "/metrics").await.text();
    for line in [
        "fastsock_groups 1.0",
        "fastsock_group_messages_total{audience=\"group\"} 2",
        "fastsock_group_messages_total{audience=\"everyone\"} 1",
        "fastsock_group_downlinks_total 3",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_members_are_one_message_of_redis() {
    // As many as a test may open sockets for; the bench has 10,000.
    const MEMBERS: usize = 500;
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis)).await;
    let mut devices = Vec::new();
    for n in 0..MEMBERS {
        devices.push(connect(&bridge, &format!("d{n},g")).await);
    }
    assert_eq!(redis.publish("fastsock:group:g", "hello").await, 1);
    for device in &devices {
        device.wait_text("hello").await;
    }
    let stats = bridge.stats();
    balanced(&stats);
    assert_eq!(stats.downlink.delivered, MEMBERS as u64);
    bridge.stop(DEADLINE).await;
}

fn config(redis: &TempRedis) -> Config {
    support::on_redis(redis)
}

/// A bridge whose links are up.
async fn start(config: Config) -> Bridge {
    let builder = Bridge::builder(config).hooks(ByToken);
    let bridge = builder.start().await.expect("it starts");
    eventually("its links are up", async || {
        bridge.send(&id("nobody"), "x".into()).await.is_ok()
    })
    .await;
    bridge
}

async fn connect(bridge: &Bridge, token: &str) -> Attended {
    Device::connect(bridge.local_addr(), token).await.attend()
}

async fn v2(addr: SocketAddr, token: &str) -> Device {
    let offer = [("sec-websocket-protocol", "fastsock.v2.ack")];
    let target = format!("/?token={token}");
    Device::request(addr, &target, &offer).await.unwrap()
}

fn id(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn balanced(stats: &Stats) {
    let books = &stats.downlink;
    let known = books.delivered + books.held + books.lost.total();
    assert_eq!(books.received, known, "{books:?}");
}

//! The lines of an ACL in docs/security.md: all that a gateway needs is in them, and nothing else. What a user lacks of them is
//! named, by the log and by `--check`.

use std::time::Duration;

use redis::Value;
use support::{
    Attended, Backend, DEADLINE, Device, Gateway, GatewayBuilder, Reply, TempCluster, TempRedis,
    TempSentinel, call, eventually, eventually_within, get,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_rights_of_the_docs_everything_works() {
    for (mode, uses) in [
        ("pattern", &["pattern"][..]),
        ("exact", &["exact"]),
        ("pattern", &["pattern", "SPOOL=redis"]),
        ("exact", &["exact", "MAILBOX=redis"]),
        ("sharded", &["sharded", "MAILBOX=redis"]),
        ("exact+sharded", &["sharded"]),
        ("exact", &["exact", "SPOOL=redis", "other than 0"]),
    ] {
        let rights = rights(uses);
        let redis = TempRedis::new().await;
        allow(&redis, &rights).await;
        everything_works(&redis, mode, uses).await;
        let denied: Vec<Value> = redis.cmd(&["ACL", "LOG"]).await;
        assert_eq!(denied, [], "with {rights:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_with_pattern_is_named() {
    each_missing_is_named("pattern", &["pattern"], &["pattern"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_with_exact_is_named() {
    each_missing_is_named("exact", &["exact"], &["exact"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_with_sharded_is_named() {
    each_missing_is_named("sharded", &["sharded"], &["sharded"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_with_a_spool_or_another_database_is_named() {
    let more = ["SPOOL=redis", "REPLICAS", "other than 0"];
    let all = ["pattern", more[0], more[1], more[2]];
    each_missing_is_named("pattern", &all, &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_with_mailboxes_is_named() {
    let mailbox = "MAILBOX=redis";
    each_missing_is_named("pattern", &["pattern", mailbox], &[mailbox]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_by_a_wider_pattern_are_not_enough_and_that_is_said() {
    let redis = TempRedis::new().await;
    let mut rights = rights(&["pattern"]);
    rights.retain(|right| !right.starts_with('&'));
    rights.push("&fastsock:*".into()); // as a pattern it matches, as text it differs
    allow(&redis, &rights).await;
    let gateway = gateway(&redis, "pattern", &[]).start().await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    is_named(&gateway, "&fastsock:client:*").await;
    let lacking = "devices get no downlinks from Redis: NOPERM";
    gateway
        .wait_line_where(lacking, |line| {
            line["error"]
                .as_str()
                .is_some_and(|e| e.starts_with(lacking))
        })
        .await;
    // The right is given, and the same link brings them.
    let give = ["ACL", "SETUSER", "gateway", "&fastsock:client:*"];
    redis.cmd::<()>(&give).await;
    eventually("downlinks arrive", async || {
        redis.publish("fastsock:client:dev", "hello").await;
        device.texts().contains(&"hello".to_owned())
    })
    .await;
    let given = "The user of Redis has all rights it needs";
    gateway.wait_line(given).await;
    assert_eq!(
        gateway.lines_with("Connected to Redis as publisher").len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_commands_of_the_original_alone_devices_are_known_and_reached() {
    let redis = TempRedis::new().await;
    let original = ["+hset", "+hdel", "+psubscribe", "+publish", "~*", "&*"].map(str::to_owned);
    allow(&redis, &original).await;
    let gateway = gateway(&redis, "pattern", &[]).start().await;
    for word in ["publisher", "subscriber"] {
        let line = format!("Connected to Redis as {word}");
        gateway.wait_line(&line).await;
    }
    gateway
        .wait_line_where("fencing is off", |line| {
            line["level"] == "warn" && line["missing"] == "+eval"
        })
        .await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    redis.wait_field("fastsock:clients", "dev").await;
    assert_eq!(redis.publish("fastsock:client:dev", "hello").await, 1);
    device.wait_text("hello").await;
    let raw = [("content-type", "application/octet-stream")];
    let path = "/api/v1/clients/nobody/messages";
    let sent = call(gateway.admin_addr(), "POST", path, &raw, "x").await;
    assert_eq!(sent.status, 410, "{}", sent.text());
    let leaves = Device::connect(gateway.addr(), "leaves").await;
    redis.wait_field("fastsock:clients", "leaves").await;
    drop(leaves);
    redis.wait_no_field("fastsock:clients", "leaves").await;
    assert!(redis.hgetall("fastsock:owner").await.is_empty());

    // With all rights it claims what it has.
    allow(&redis, &rights(&["pattern"])).await;
    let owner = eventually_within(LONG, "it is claimed", async || {
        redis.hget("fastsock:owner", "dev").await
    });
    assert_eq!(owner.await.split(':').count(), 3);
    assert!(device.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_needs_to_be_asked_for_the_master() {
    let master = TempRedis::new().await;
    allow(&master, &rights(&["pattern"])).await;
    let sentinel = TempSentinel::watch(&master).await;
    let url = sentinel.url().replace("://", "://gateway:password@");
    let asked = rights(&["Sentinel"]);
    let [right] = &asked[..] else {
        panic!("{asked:?}");
    };
    let refuse = right.replace('+', "-");
    sentinel.allow("default", &[&refuse]).await; // so that it must log in
    let start = async || {
        let gateway = Gateway::builder().var("FASTSOCK_REDIS_URL", &*url);
        gateway.start().await
    };
    sentinel
        .allow("gateway", &["on", ">password", "-@all"])
        .await;
    let gateway = start().await;
    is_named(&gateway, right).await;
    drop(gateway);
    sentinel.allow("gateway", &[right]).await;
    let gateway = start().await;
    let _device = Device::connect(gateway.addr(), "dev").await;
    master.wait_field("fastsock:clients", "dev").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_needs_two_more() {
    let mut cluster = TempCluster::new().await;
    let url = cluster.url().replace("://", "://gateway:password@");
    let (mut all, more) = (rights(&["pattern"]), rights(&["a cluster"]));
    all.extend(more.clone());
    for missing in more.iter().map(Some).chain([None]) {
        let mut some = all.clone();
        some.retain(|right| Some(right) != missing);
        for server in cluster.servers() {
            allow(server, &some).await;
        }
        let gateway = || Gateway::builder().var("FASTSOCK_REDIS_URL", &*url);
        let running = gateway().start().await;
        match missing {
            Some(right) => is_named(&running, right).await,
            None => {
                let _device = Device::connect(running.addr(), "dev").await;
                eventually("it is in the hash", async || {
                    let get = ["HGET", "fastsock:clients", "dev"];
                    cluster.cmd::<Option<String>>(&get).await.is_some()
                })
                .await;
                for server in cluster.servers() {
                    let denied: Vec<Value> = server.cmd(&["ACL", "LOG"]).await;
                    assert_eq!(denied, []);
                }
            }
        }
        check_names(gateway(), missing).await;
        drop(running);
        for server in cluster.servers() {
            server.cmd::<()>(&["ACL", "LOG", "RESET"]).await;
        }
    }
}

/// Two gateways do all they can do with Redis.
async fn everything_works(redis: &TempRedis, mode: &str, uses: &[&str]) {
    let backend = Backend::start().await;
    let start = async || {
        let gateway = gateway(redis, mode, uses).var("REMOTE_URL", backend.url());
        let gateway = gateway.start().await;
        for word in ["publisher", "subscriber"] {
            gateway
                .wait_line(&format!("Connected to Redis as {word}"))
                .await;
        }
        gateway
    };
    let (mut one, mut two) = (start().await, start().await);
    let db = if uses.contains(&"other than 0") {
        "3"
    } else {
        "0"
    };
    let fields = async || {
        let mut connection = redis.connection().await;
        let (_, mut ids): ((), Vec<String>) = redis::pipe()
            .cmd("SELECT")
            .arg(db)
            .cmd("HKEYS")
            .arg("fastsock:clients")
            .query_async(&mut connection)
            .await
            .expect("the default user may");
        ids.sort();
        ids
    };
    let first = Device::connect(one.addr(), "a").await.attend();
    let other = Device::connect(two.addr(), "b").await.attend();
    eventually("both are known", async || fields().await == ["a", "b"]).await;
    let by = if mode.contains("sharded") {
        "SPUBLISH"
    } else {
        "PUBLISH"
    };
    let publish = [by, "fastsock:client:a", "published"];
    assert!(redis.cmd::<u64>(&publish).await >= 1);
    first.wait_text("published").await;
    let raw = [("content-type", "application/octet-stream")];
    let path = "/api/v1/clients/b/messages";
    let sent = call(one.admin_addr(), "POST", path, &raw, "sent").await;
    assert_eq!(sent.status, 202, "{}", sent.text());
    other.wait_text("sent").await;
    let member = "/api/v1/groups/g/members/b";
    let joined = call(one.admin_addr(), "PUT", member, &raw, "").await;
    assert_eq!(joined.status, 202, "{}", joined.text());
    redis.wait_listeners("fastsock:group:g", 1).await;
    for path in ["/api/v1/groups/g/messages", "/api/v1/broadcast"] {
        let sent = call(one.admin_addr(), "POST", path, &raw, path).await;
        assert_eq!(sent.status, 202, "{}", sent.text());
        other.wait_text(path).await;
    }
    let left = call(one.admin_addr(), "DELETE", member, &raw, "").await;
    assert_eq!(left.status, 202, "{}", left.text());
    redis.wait_listeners("fastsock:group:g", 0).await;
    first.send("uplink").await;
    backend.wait_delivered("a", 1).await;

    if uses.contains(&"MAILBOX=redis") {
        mailboxes_work(&one, &other).await;
    }
    // It is seated elsewhere, which the first gateway is told.
    let moved = Device::connect(two.addr(), "a").await.attend();
    assert_eq!(first.wait_closed().await.code, Some(4509));
    if uses.contains(&"SPOOL=redis") {
        letters_work(&one, &backend).await;
    }
    // The second dies, and the first clears up after it.
    let third = Device::connect(one.addr(), "c").await.attend();
    eventually("all are known", async || fields().await == ["a", "b", "c"]).await;
    two.kill();
    eventually_within(LONG, "those of the second are gone", async || {
        fields().await == ["c"]
    })
    .await;
    assert_eq!(one.stop().await, Some(0));
    assert_eq!(fields().await, [""; 0]);
    drop((other, moved, third));
    for gateway in [&one, &two] {
        let lacks: Vec<_> = gateway
            .lines()
            .into_iter()
            .filter(|line| line["level"] == "error" && line["client_id"].is_null())
            .collect();
        assert_eq!(lacks, [serde_json::Value::Null; 0], "{}", gateway.output());
    }
}

/// What is kept for a device of another gateway reaches it.
async fn mailboxes_work(gateway: &Gateway, device: &Attended) {
    let json = [("content-type", "application/json")];
    let (admin, path) = (gateway.admin_addr(), "/api/v1/clients/b/messages");
    let kept = r#"{"data":"kept","id":"1","ttl":60}"#;
    assert_eq!(call(admin, "POST", path, &json, kept).await.status, 202);
    device.wait_text("kept").await;
    let path = "/api/v1/clients/b/mailbox";
    let messages = async || get(admin, path).await.json()["messages"].as_u64();
    eventually("it is removed", async || messages().await == Some(0)).await;
    assert_eq!(call(admin, "DELETE", path, &json, "").await.status, 200);
}

/// What is given up is kept, listed, delivered again and dropped.
async fn letters_work(gateway: &Gateway, backend: &Backend) {
    let mut device = Device::connect(gateway.addr(), "letters").await;
    backend.queue([Reply::new(400), Reply::new(400)]);
    device.send("bad 1").await;
    device.send("bad 2").await;
    let admin = gateway.admin_addr();
    let ids = async || {
        let listed = get(admin, "/api/v1/dead-letters").await.json();
        let letters = listed["dead_letters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ids = letters
            .iter()
            .filter_map(|letter| letter["id"].as_str().map(str::to_owned));
        ids.collect::<Vec<_>>()
    };
    eventually_within(LONG, "two are kept", async || ids().await.len() == 2).await;
    let ids_then = ids().await;
    let json = [("content-type", "application/json")];
    let replay = format!("/api/v1/dead-letters/{}/replay", ids_then[0]);
    assert!(call(admin, "POST", &replay, &json, "").await.status < 300);
    let drop_one = format!("/api/v1/dead-letters/{}", ids_then[1]);
    assert!(call(admin, "DELETE", &drop_one, &json, "").await.status < 300);
    backend.wait_delivered("letters", 1).await;
    eventually("none is kept", async || ids().await.is_empty()).await;
    device.close(1000).await;
}

/// Takes each right away in turn that these uses add, and looks who names it.
async fn each_missing_is_named(mode: &str, uses: &[&str], each_of: &[&str]) {
    let redis = TempRedis::new().await;
    let all = rights(uses);
    allow(&redis, &all).await;
    check_names(gateway(&redis, mode, uses), None).await;
    for right in rights(each_of) {
        let mut some = all.clone();
        some.retain(|other| *other != right);
        allow(&redis, &some).await;
        let running = gateway(&redis, mode, uses).start().await;
        is_named(&running, &right).await;
        drop(running);
        check_names(gateway(&redis, mode, uses), Some(&right)).await;
    }
}

/// The log of a gateway names a missing right.
async fn is_named(gateway: &Gateway, right: &str) {
    let names = |text: &serde_json::Value| {
        let text = text.as_str().unwrap_or_default();
        text.split([' ', ';']).any(|word| word == right)
    };
    gateway
        .wait_line_where(right, |line| {
            line["level"] == "error" && (names(&line["missing"]) || names(&line["error"]))
        })
        .await;
}

/// `--check` names it too, and fails; or succeeds when nothing is missing.
async fn check_names(gateway: GatewayBuilder, right: Option<&String>) {
    let mut check = gateway.arg("--check").launch();
    let code = check.exit_code().await;
    let lines = check.stdout();
    let line = lines.iter().find(|line| line.starts_with("redis: "));
    let line = line.unwrap_or_else(|| panic!("{}", check.output()));
    match right {
        Some(right) => {
            assert!(
                line.split([' ', ';']).any(|word| word == right),
                "{right}: {line}"
            );
            assert_eq!(code, Some(2));
        }
        None => assert!(line.ends_with("allows all that is needed"), "{line}"),
    }
}

/// A gateway that needs what these uses are about.
fn gateway(redis: &TempRedis, mode: &str, uses: &[&str]) -> GatewayBuilder {
    let db = if uses.contains(&"other than 0") { 3 } else { 0 };
    let url = format!("redis://gateway:password@127.0.0.1:{}/{db}", redis.port());
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_REDIS_URL", url)
        .var("FASTSOCK_REDIS_SUBSCRIBE", mode);
    let spool = uses.contains(&"SPOOL=redis");
    let gateway = gateway.var("FASTSOCK_SPOOL", if spool { "redis" } else { "memory" });
    let mailbox = uses.contains(&"MAILBOX=redis");
    let gateway = gateway.var("FASTSOCK_MAILBOX", if mailbox { "redis" } else { "off" });
    let replicas = uses.contains(&"REPLICAS");
    gateway.var("FASTSOCK_SPOOL_REPLICAS", if replicas { "1" } else { "0" })
}

/// Gives the user of the gateways these rights and no others.
async fn allow(redis: &TempRedis, rights: &[String]) {
    let start = [
        "ACL",
        "SETUSER",
        "gateway",
        "reset",
        "on",
        ">password",
        "-@all",
    ];
    let words = start.into_iter().chain(rights.iter().map(String::as_str));
    redis.cmd::<()>(&words.collect::<Vec<_>>()).await;
}

/// The rights on the lines of docs/security.md whose comments say what they are for.
fn rights(uses: &[&str]) -> Vec<String> {
    let page = include_str!("../docs/security.md");
    let (_, behind) = page.split_once("<!-- rights: ").expect("the page has them");
    let block = behind.split("```").nth(1).expect("as a block");
    let mut lines = block.lines();
    let mut rights = Vec::new();
    while let Some(comment) = lines.find(|line| line.starts_with("# ")) {
        let line = lines.next().expect("a line follows each comment");
        if uses.iter().any(|used| comment.contains(used)) {
            let rest = line
                .strip_prefix("ACL SETUSER gateway ")
                .expect("it is one");
            let words = rest
                .split(' ')
                .filter(|word| word.starts_with(['+', '~', '&']));
            rights.extend(words.map(str::to_owned));
        }
    }
    assert!(!rights.is_empty());
    rights
}

const LONG: Duration = Duration::from_secs(DEADLINE.as_secs() * 3);

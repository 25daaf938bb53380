//! Redis refuses commands: what needs them is worse off and says so once, the links stay, and all the rest goes on.

#[path = "redis_refusals/spool.rs"]
mod spool;

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;
use support::{
    Attended, Backend, DEADLINE, Device, Gateway, GatewayBuilder, OwnNetwork, TempCluster,
    TempRedis, call, eventually, eventually_within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_out_of_memory_costs_presence_and_nothing_else() {
    refuses("OOM", async |redis, is_refusing| {
        let most = if is_refusing { "1" } else { "0" };
        redis.cmd::<()>(&["CONFIG", "SET", "maxmemory", most]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_without_its_replicas_costs_presence_and_nothing_else() {
    refuses("NOREPLICAS", async |redis, is_refusing| {
        let least = if is_refusing { "1" } else { "0" };
        let set = ["CONFIG", "SET", "min-replicas-to-write", least];
        redis.cmd::<()>(&set).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_costs_presence_and_nothing_else() {
    refuses("MISCONF", async |redis, is_refusing| {
        let snapshot = redis.dir().join("dump.rdb"); // which a directory of that name prevents
        if is_refusing {
            fs::create_dir(&snapshot).unwrap();
            redis
                .cmd::<()>(&["CONFIG", "SET", "save", "3600 1000000"])
                .await;
        } else {
            fs::remove_dir(&snapshot).unwrap();
        }
        let outcome = ["rdb_last_bgsave_status:ok", "rdb_last_bgsave_status:err"];
        redis.cmd::<()>(&["BGSAVE"]).await;
        eventually("it has tried", async || {
            let info: String = redis.cmd(&["INFO", "persistence"]).await;
            info.contains(outcome[usize::from(is_refusing)])
        })
        .await;
    })
    .await;
}

#[test]
fn a_redis_whose_disk_is_full_costs_presence_and_nothing_else() {
    let test = "a_redis_whose_disk_is_full_costs_presence_and_nothing_else";
    OwnNetwork::of(test).run_with_hosts(|_| {
        within_a_runtime(async {
            let durable = ["--appendonly", "yes", "--appendfsync", "everysec"];
            let mut redis = redis().args(durable).stopped();
            mount_small(redis.dir());
            redis.start().await;
            refuses_at(&redis, "MISCONF", async |redis, is_refusing| {
                let ballast = redis.dir().join("ballast");
                if is_refusing {
                    // As much as there is room for; then Redis notices with its next write.
                    let _ = fs::write(&ballast, vec![0; 4 << 20]);
                    eventually("it notices", async || {
                        redis
                            .try_cmd::<()>(&["SET", "x", &"x".repeat(1 << 16)])
                            .await
                            .is_err()
                    })
                    .await;
                } else {
                    fs::remove_file(&ballast).unwrap();
                }
            })
            .await;
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_withdrawn_costs_what_needs_it_and_nothing_else() {
    for (right, lacking) in [
        ("hset", "presence is not written"),
        ("zadd", "the lease of this gateway is not renewed"),
        ("eval", "presence is not written"),
    ] {
        let (minus, plus) = (format!("-{right}"), format!("+{right}"));
        let mut pair = Pair::start(redis().start().await).await;
        pair.redis.cmd::<()>(&["ACL", "SETUSER", "u", &minus]).await;
        pair.late_comer().await;
        pair.wait_refused("NOPERM").await;
        pair.wait_error(lacking).await;
        pair.wait_line_with("missing", &plus).await;
        pair.goes_on().await;
        pair.redis.cmd::<()>(&["ACL", "SETUSER", "u", &plus]).await;
        pair.recovers().await;
        pair.said_each_once();
    }
}

/// The login that a gateway has is no good any more, which shows when its links are closed or log in again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_is_said_once_and_the_gateway_is_back_when_it_is_right_again() {
    let by_acl = [
        &["ACL", "SETUSER", "u", "resetpass", ">other"][..],
        &["ACL", "SETUSER", "u", ">p"],
    ];
    let by_config = [
        &["CONFIG", "SET", "requirepass", "other"][..],
        &["CONFIG", "SET", "requirepass", ""],
    ];
    for (login, code, [wrong, right]) in [("u:p@", "WRONGPASS", by_acl), ("", "NOAUTH", by_config)]
    {
        let (redis, backend) = (redis().start().await, Backend::start().await);
        let url = format!("redis://{login}127.0.0.1:{}", redis.port());
        let gateway = builder(url, &backend).start().await;
        let device = Device::connect(gateway.addr(), "a").await.attend();
        redis.wait_field("fastsock:clients", "a").await;
        let mut operator = redis.connection().await; // it stays logged in, as the gateway does
        let mut does = async |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            let done = command.arg(&words[1..]).exec_async(&mut operator).await;
            done.unwrap_or_else(|e| panic!("{words:?}: {e}"));
        };
        does(wrong).await;
        for kind in ["normal", "pubsub"] {
            does(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
        for who in ["publisher", "subscriber"] {
            let what = format!("Redis error for {who}: {code}");
            let is_said = |line: &Value| {
                line["message"] == format!("Redis error for {who}")
                    && line["error"].as_str().is_some_and(|e| e.contains(code))
            };
            gateway.wait_line_where(&what, is_said).await;
        }
        assert!(device.is_open());
        does(right).await;
        for who in ["publisher", "subscriber"] {
            let connected = format!("Connected to Redis as {who}");
            let is_back = async || gateway.lines_with(&connected).len() == 2;
            eventually_within(LONG, &connected, is_back).await;
        }
        redis.publish("fastsock:client:a", "heard").await;
        device.wait_text("heard").await;
        let lines = gateway.lines();
        let is_told = |line: &&Value| line["error"].as_str().is_some_and(|e| e.contains(code));
        assert_eq!(
            lines.iter().filter(is_told).count(),
            2,
            "once a link: {}",
            gateway.output()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_reads_its_data_links_stay_for_five_seconds() {
    for (seconds, links) in [(3, 1), (8, 2)] {
        let redis = redis()
            .args(["--enable-debug-command", "yes"])
            .args(["--rdbcompression", "no"])
            .args(["--loading-process-events-interval-bytes", "1024"])
            .start()
            .await;
        let mut pair = Pair::start(redis).await;
        for n in 0..100 {
            let (key, text) = (format!("key{n}"), "x".repeat(1000));
            pair.redis.cmd::<()>(&["SET", &key, &text]).await;
        }
        let each_us = (seconds * 10_000).to_string();
        let set = ["CONFIG", "SET", "key-load-delay", &each_us];
        pair.redis.cmd::<()>(&set).await;
        let mut other = pair.redis.connection().await;
        #[allow(clippy::disallowed_methods, reason = "the test waits for it")]
        let reload = tokio::spawn(async move {
            let reload = redis::cmd("DEBUG").arg("RELOAD").to_owned();
            let _ = reload.exec_async(&mut other).await; // its answer may come later than is waited for
        });
        pair.wait_refused("LOADING").await;
        pair.hears_all(12).await;
        reload.await.unwrap();
        eventually_within(LONG, "it has read its data", async || {
            pair.redis.try_cmd::<()>(&["GET", "key0"]).await.is_ok()
        })
        .await;
        let set = ["CONFIG", "SET", "key-load-delay", "0"];
        pair.redis.cmd::<()>(&set).await;
        pair.recovers().await;
        let connected = pair.one.lines_with("Connected to Redis as publisher").len();
        assert_eq!(connected, links, "{}", pair.one.output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_master_that_turns_into_a_replica_still_brings_downlinks() {
    let mut pair = Pair::start(redis().start().await).await;
    let other = TempRedis::new().await;
    pair.redis.follow(&other).await;
    pair.late_comer().await;
    pair.wait_refused("READONLY").await;
    // What is published on its master comes over it, to devices that it does not know of.
    for n in 0..20 {
        other.publish("fastsock:client:a", format!("far {n}")).await;
    }
    pair.a.wait_text("far 19").await;
    pair.hears_all(20).await;
    pair.redis.promote().await;
    pair.recovers().await;
    pair.said_each_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_its_master_is_kept_until_it_is_one_itself() {
    let mut pair = Pair::start(redis().start().await).await;
    let stale = ["CONFIG", "SET", "replica-serve-stale-data", "no"];
    pair.redis.cmd::<()>(&stale).await;
    pair.redis.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    pair.late_comer().await;
    pair.wait_refused("MASTERDOWN").await;
    pair.hears_all(20).await;
    pair.redis.promote().await;
    pair.recovers().await;
    pair.said_each_once();
}

#[test]
fn a_master_that_turns_into_a_replica_is_left_when_its_name_leads_to_another() {
    let test = "a_master_that_turns_into_a_replica_is_left_when_its_name_leads_to_another";
    OwnNetwork::of(test).run_with_hosts(|hosts| {
        within_a_runtime(async {
            fs::write(hosts, "127.0.0.1 redis.test\n").unwrap();
            let old = TempRedis::new().await;
            let new = TempRedis::builder()
                .listen([127, 0, 0, 2])
                .port(old.port())
                .start()
                .await;
            let url = format!("redis://redis.test:{}", old.port());
            let gateway = Gateway::builder().var("FASTSOCK_REDIS_URL", url);
            let gateway = gateway.start().await;
            let device = Device::connect(gateway.addr(), "dev").await.attend();
            old.wait_field("fastsock:clients", "dev").await;
            old.follow(&new).await;
            fs::write(hosts, "127.0.0.2 redis.test\n").unwrap();
            new.wait_field("fastsock:clients", "dev").await;
            new.publish("fastsock:client:dev", "from the new one").await;
            device.wait_text("from the new one").await;
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_a_slot_keeps_its_links_and_a_slot_that_moves_is_followed() {
    let mut cluster = TempCluster::new().await;
    let gateway = Gateway::builder()
        .var("FASTSOCK_REDIS_URL", cluster.url())
        .start()
        .await;
    let device = Device::connect(gateway.addr(), "a").await.attend();
    let known = async |cluster: &TempCluster, id: &str| {
        eventually_within(LONG, "it is in the hash", async || {
            let get = ["HGET", "fastsock:clients", id];
            cluster.cmd::<Option<String>>(&get).await.is_some()
        })
        .await;
    };
    known(&cluster, "a").await;
    let keyslot = ["CLUSTER", "KEYSLOT", "fastsock:clients"];
    let slot: u16 = cluster.cmd(&keyslot).await;
    let slot = slot.to_string();
    let servers = cluster.servers();
    for command in ["DELSLOTS", "ADDSLOTS"] {
        servers[0].cmd::<()>(&["CLUSTER", command, &slot]).await;
        if command == "DELSLOTS" {
            let _late = Device::connect(gateway.addr(), "late").await.attend();
            let error = gateway.wait_line_where("presence is refused", |line| {
                let error = line["error"].as_str().unwrap_or_default();
                error.starts_with("presence is not written: CLUSTERDOWN")
            });
            error.await;
            servers[1].publish("fastsock:client:a", "meanwhile").await;
            device.wait_text("meanwhile").await;
        }
    }
    gateway
        .wait_line_where("it is taken again", |line| {
            line["again"] == "presence is written"
        })
        .await;

    // The slot goes to another server, with all that is in it.
    let (from, to) = (servers[0].port(), servers[1].port().to_string());
    let [from_id, to_id]: [String; 2] = [
        servers[0].cmd(&["CLUSTER", "MYID"]).await,
        servers[1].cmd(&["CLUSTER", "MYID"]).await,
    ];
    let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id];
    servers[1].cmd::<()>(&importing).await;
    let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id];
    servers[0].cmd::<()>(&migrating).await;
    let migrate = ["MIGRATE", "127.0.0.1", &to, "fastsock:clients", "0", "5000"];
    servers[0].cmd::<()>(&migrate).await;
    for n in [1, 0] {
        let node = ["CLUSTER", "SETSLOT", &slot, "NODE", &to_id];
        servers[n].cmd::<()>(&node).await;
    }
    let _moved = Device::connect(gateway.addr(), "moved").await.attend();
    known(&cluster, "moved").await;
    assert_ne!(from.to_string(), to);
    for word in ["publisher", "subscriber"] {
        let connected = format!("Connected to Redis as {word}");
        assert_eq!(
            gateway.lines_with(&connected).len(),
            1,
            "{}",
            gateway.output()
        );
    }
}

/// Redis refuses for a while whatever needs memory, disk or replicas.
async fn refuses(code: &str, switch: impl AsyncFn(&TempRedis, bool)) {
    let redis = redis().start().await;
    refuses_at(&redis, code, switch).await;
}

async fn refuses_at(redis: &TempRedis, code: &str, switch: impl AsyncFn(&TempRedis, bool)) {
    let mut pair = Pair::at(redis).await;
    switch(redis, true).await;
    pair.late_comer().await;
    pair.wait_refused(code).await;
    pair.wait_error(&format!("presence is not written: {code}"))
        .await;
    pair.goes_on().await;
    switch(redis, false).await;
    pair.recovers().await;
    pair.said_each_once();
}

/// Two gateways on one Redis, the first as a user of its own, each with a device.
struct Pair<R = TempRedis> {
    redis: R,
    one: Gateway,
    two: Gateway,
    backend: Backend,
    a: Attended,
    b: Attended,
    late: Vec<Attended>,
    said: usize,
}

impl Pair {
    async fn start(redis: TempRedis) -> Self {
        let Pair {
            one,
            two,
            backend,
            a,
            b,
            late,
            said,
            ..
        } = Pair::at(&redis).await;
        Self {
            redis,
            one,
            two,
            backend,
            a,
            b,
            late,
            said,
        }
    }
}

impl<'a> Pair<&'a TempRedis> {
    async fn at(redis: &'a TempRedis) -> Self {
        let backend = Backend::start().await;
        let port = redis.port();
        let one = builder(format!("redis://u:p@127.0.0.1:{port}"), &backend);
        let two = builder(format!("redis://127.0.0.1:{port}"), &backend);
        let (one, two) = (one.start().await, two.start().await);
        let a = Device::connect(one.addr(), "a").await.attend();
        let b = Device::connect(two.addr(), "b").await.attend();
        for id in ["a", "b"] {
            redis.wait_field("fastsock:clients", id).await;
        }
        for gateway in [&one, &two] {
            for word in ["publisher", "subscriber"] {
                gateway
                    .wait_line(&format!("Connected to Redis as {word}"))
                    .await;
            }
        }
        Self {
            redis,
            one,
            two,
            backend,
            a,
            b,
            late: Vec::new(),
            said: 0,
        }
    }
}

impl<R: std::borrow::Borrow<TempRedis>> Pair<R> {
    fn redis(&self) -> &TempRedis {
        self.redis.borrow()
    }

    /// One more device, of which Redis cannot be told.
    async fn late_comer(&mut self) {
        let id = format!("late{}", self.late.len());
        let device = Device::connect(self.one.addr(), &id).await;
        self.late.push(device.attend());
    }

    /// Redis has refused several commands for this reason.
    async fn wait_refused(&self, code: &str) {
        let least = self.refusals(code).await + 5;
        let what = format!("{code} is answered {least} times");
        eventually_within(LONG, &what, async || self.refusals(code).await >= least).await;
    }

    async fn refusals(&self, code: &str) -> u64 {
        let info: String = self.redis().cmd(&["INFO", "errorstats"]).await;
        // What a script was refused is an ERR.
        [code, "ERR"].iter().map(|code| count_of(&info, code)).sum()
    }

    async fn wait_error(&self, text: &str) {
        let has = |line: &Value| line["error"].as_str().is_some_and(|e| e.contains(text));
        self.one.wait_line_where(text, has).await;
    }

    async fn wait_line_with(&self, field: &str, text: &str) {
        let has = |line: &Value| line[field].as_str().is_some_and(|e| e.contains(text));
        self.one.wait_line_where(text, has).await;
    }

    /// Everything that needs not what is refused: downlinks, uplinks, sending to other gateways.
    async fn goes_on(&mut self) {
        self.hears_all(24).await;
        self.said += 1;
        let text = format!("uplink {}", self.said);
        self.a.send(&text).await;
        eventually("the uplink arrives", async || {
            self.backend.delivered("a").contains(&text)
        })
        .await;
        let path = "/api/v1/clients/b/messages";
        let raw = [("content-type", "application/octet-stream")];
        let admin = self.one.admin_addr();
        let answer = call(admin, "POST", path, &raw, text.clone()).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (202, r#"{"sent":"elsewhere"}"#)
        );
        self.b.wait_text(&text).await;
        assert!(self.a.is_open() && self.b.is_open());
    }

    /// Of so many messages PUBLISHed to each device, none is missing.
    async fn hears_all(&mut self, count: usize) {
        self.said += 1;
        let texts: Vec<_> = (0..count).map(|n| format!("{}: {n}", self.said)).collect();
        for text in &texts {
            self.redis().publish("fastsock:client:a", text).await;
            tokio::time::sleep(Duration::from_millis(20)).await; // so that it takes a while
        }
        self.a.wait_text(texts.last().expect("some")).await;
        let heard = self.a.texts();
        let missing: Vec<_> = texts.iter().filter(|text| !heard.contains(text)).collect();
        assert_eq!(missing, [""; 0], "{}", self.one.output());
    }

    /// Redis takes everything again, and the gateway says so.
    async fn recovers(&mut self) {
        self.late_comer().await;
        for n in 0..self.late.len() {
            let id = format!("late{n}");
            let what = format!("{id} is in the hash");
            eventually_within(LONG, &what, async || {
                self.redis().hget("fastsock:clients", &id).await.is_some()
            })
            .await;
        }
        let lacking = |line: &&Value| {
            let error = line["error"].as_str().unwrap_or_default();
            line["message"]
                .as_str()
                .unwrap_or_default()
                .starts_with("Redis error for ")
                && error.contains(": ")
        };
        let is_said = async || {
            let lines = self.one.lines();
            let again = self.one.lines_with("Redis takes again what it had refused");
            lines.iter().filter(lacking).count() == again.len()
        };
        let what = format!("it says that it works again: {}", self.one.output());
        eventually_within(LONG, &what, is_said).await;
        self.goes_on().await;
    }

    /// Nothing was said twice, and no link was lost.
    fn said_each_once(&self) {
        for gateway in [&self.one, &self.two] {
            for word in ["publisher", "subscriber"] {
                let connected = format!("Connected to Redis as {word}");
                let connected = gateway.lines_with(&connected);
                assert_eq!(connected.len(), 1, "{}", gateway.output());
            }
            let mut errors: Vec<_> = gateway.lines();
            errors.retain(|line| line["level"] == "error");
            let count = errors.len();
            let mut errors: Vec<_> = errors
                .iter()
                .map(|line| line["error"].to_string())
                .collect();
            errors.sort();
            errors.dedup();
            assert_eq!(errors.len(), count, "{}", gateway.output());
            let gaps = gateway
                .lines()
                .iter()
                .filter(|l| l["from_ms"].is_u64())
                .count();
            assert_eq!(gaps, 0, "{}", gateway.output());
        }
    }
}

/// How often an error was answered, says Redis.
fn count_of(info: &str, code: &str) -> u64 {
    let name = format!("errorstat_{code}:count=");
    let line = info.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

fn redis() -> support::RedisBuilder {
    TempRedis::builder().user("u", "p", "~* &* +@all")
}

fn builder(url: String, backend: &Backend) -> GatewayBuilder {
    Gateway::builder()
        .admin()
        .var("FASTSOCK_REDIS_URL", url)
        .var("REMOTE_URL", backend.url())
}

/// Makes a directory a disk of 1 MiB.
fn mount_small(dir: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir)
        .status();
    assert!(mounted.expect("mount is there").success());
}

fn within_a_runtime(body: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(body);
}

const LONG: Duration = Duration::from_secs(DEADLINE.as_secs() * 3);

//! The spool in Redis while it is refused what it needs.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_without_memory_takes_nothing_and_delivers_what_it_has() {
    let mut spool = Spool::start().await;
    spool.backend.go_down().await;
    spool.says(0..5).await;
    spool.holds(5).await;
    let set = ["CONFIG", "SET", "maxmemory", "1"];
    spool.redis.cmd::<()>(&set).await;
    spool.says(5..8).await;
    spool.wait_error("the spool takes no uplinks: OOM").await;
    // Another gateway takes the place of the first, which nobody else could do for it.
    spool.is_replaced().await;
    spool.backend.come_back();
    spool.delivers(5).await;
    spool.holds(0).await;
    let set = ["CONFIG", "SET", "maxmemory", "0"];
    spool.redis.cmd::<()>(&set).await;
    spool.says(8..10).await;
    spool.delivers(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_is_refused_keeps_its_link_and_goes_on_once_it_is_not() {
    for (refuse, relent, error) in [
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"][..],
            &["CONFIG", "SET", "min-replicas-to-write", "0"][..],
            "the spool takes no uplinks: NOREPLICAS",
        ),
        (
            &["ACL", "SETUSER", "u", "-xadd"],
            &["ACL", "SETUSER", "u", "+xadd"],
            "the spool takes no uplinks: ERR",
        ),
        (
            &["ACL", "SETUSER", "u", "-xread"],
            &["ACL", "SETUSER", "u", "+xread"],
            "uplinks in the spool are not read: NOPERM",
        ),
        (
            &["ACL", "SETUSER", "u", "-xdel"],
            &["ACL", "SETUSER", "u", "+xdel"],
            "delivered uplinks stay in the spool: ERR",
        ),
        (
            &["ACL", "SETUSER", "u", "-zadd"],
            &["ACL", "SETUSER", "u", "+zadd"],
            "uplinks in the spool are not delivered from here: ERR",
        ),
    ] {
        let mut spool = Spool::start().await;
        spool.says(0..5).await;
        spool.delivers(5).await;
        spool.redis.cmd::<()>(refuse).await;
        spool.says(5..6).await;
        spool.wait_error(error).await;
        if refuse[0] == "ACL" {
            let right = refuse[3].replacen('-', "+", 1);
            spool.wait_right(&right).await;
        }
        let before = spool.links().await;
        spool.says(6..8).await;
        spool.wait_refusals(4).await;
        assert_eq!(spool.links().await, before, "the links stayed");
        spool.redis.cmd::<()>(relent).await;
        spool.says(8..10).await;
        spool.delivers(10).await;
        spool.holds(0).await;
        let again = |line: &Value| {
            line["message"] == "Redis takes again what it had refused" && line["level"] == "warn"
        };
        spool
            .gateway
            .wait_line_where("it is taken again", again)
            .await;
    }
}

/// A gateway whose spool is in Redis, with a device.
struct Spool {
    redis: TempRedis,
    backend: Backend,
    gateway: Gateway,
    device: Device,
}

impl Spool {
    async fn start() -> Self {
        let redis = redis().start().await;
        let backend = Backend::start().await;
        let gateway = Self::gateway(&redis, &backend).start().await;
        let device = Device::connect(gateway.addr(), "d0").await;
        redis.wait_field("fastsock:clients", "d0").await;
        Self {
            redis,
            backend,
            gateway,
            device,
        }
    }

    fn gateway(redis: &TempRedis, backend: &Backend) -> GatewayBuilder {
        let url = format!("redis://u:p@127.0.0.1:{}", redis.port());
        builder(url, backend).var("FASTSOCK_SPOOL", "redis")
    }

    /// Its gateway is killed, with what its device has said and Redis has not taken, and another one started.
    async fn is_replaced(&mut self) {
        self.gateway.kill();
        self.gateway = Self::gateway(&self.redis, &self.backend).start().await;
        self.device = Device::connect(self.gateway.addr(), "d0").await;
    }

    async fn says(&mut self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            self.device.send(n.to_string()).await;
        }
    }

    async fn holds(&self, count: usize) {
        let what = format!("Redis holds {count} uplinks");
        eventually_within(LONG, &what, async || {
            let mut held = 0;
            for n in 0..16 {
                let key = format!("fastsock:uplink:{{{n}}}");
                held += self.redis.cmd::<usize>(&["XLEN", &key]).await;
            }
            held == count
        })
        .await;
    }

    /// So many uplinks have arrived, in order, each under a key of its own.
    async fn delivers(&self, count: usize) {
        let what = format!("{count} uplinks have arrived");
        eventually_within(LONG, &what, async || {
            let mut heard: Vec<String> = Vec::new();
            for said in self.backend.delivered("d0") {
                if !heard.contains(&said) {
                    heard.push(said);
                }
            }
            let numbers: Vec<usize> = heard.iter().map(|said| said.parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
            numbers.len() == count
        })
        .await;
    }

    async fn wait_error(&self, text: &str) {
        let has = |line: &Value| line["error"].as_str().is_some_and(|e| e.starts_with(text));
        self.gateway.wait_line_where(text, has).await;
    }

    async fn wait_right(&self, right: &str) {
        let has = |line: &Value| {
            line["missing"]
                .as_str()
                .is_some_and(|m| m.split(' ').any(|r| r == right))
        };
        self.gateway.wait_line_where(right, has).await;
    }

    /// So many commands more are refused.
    async fn wait_refusals(&self, count: u64) {
        let refused = async || {
            let info: String = self.redis.cmd(&["INFO", "errorstats"]).await;
            ["NOREPLICAS", "NOPERM", "ERR"]
                .iter()
                .map(|code| count_of(&info, code))
                .sum::<u64>()
        };
        let least = refused().await + count;
        eventually_within(LONG, "it is refused again", async || {
            refused().await >= least
        })
        .await;
    }

    /// The ids of the connections to Redis that are the gateway's.
    async fn links(&self) -> Vec<String> {
        let list: String = self.redis.cmd(&["CLIENT", "LIST"]).await;
        let ours = list.lines().filter(|line| line.contains(" user=u "));
        let mut ids: Vec<_> = ours
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        ids.sort();
        ids
    }
}

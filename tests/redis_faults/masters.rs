//! Which server is the master changes.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_sentinel_promotes_gets_everything() {
    tokio::join!(promotes("pattern"), promotes("exact"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_demoted_in_favour_of_another_is_left_for_that_one() {
    tokio::join!(demotes("pattern"), demotes("exact"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_master_that_turns_into_a_replica_is_used_again_once_it_is_master() {
    let (other, redis) = (TempRedis::new().await, TempRedis::new().await);
    let mut fleet = Fleet::start("pattern", at(&redis)).await;
    fleet.is_known(&redis).await;
    let cut = Moment::now();
    redis.follow(&other).await;
    fleet.is_degraded().await;
    fleet.works_alone().await;
    redis.promote().await;
    fleet.is_restored(&redis, cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_writes_still_delivers_downlinks() {
    // Each is a server that answers, refuses to be written to, and comes round.
    let cases: [(&str, &[&str], &[&str]); 3] = [
        (
            "OOM",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        (
            "NOPERM",
            &["ACL", "SETUSER", "u", "-eval"],
            &["ACL", "SETUSER", "u", "+eval"],
        ),
        (
            "NOREPLICAS",
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
    ];
    for (code, refuse, relent) in cases {
        let redis = TempRedis::builder()
            .user("u", "p", "~* &* +@all")
            .start()
            .await;
        let vars = [redis_url(&format!(
            "redis://u:p@127.0.0.1:{}",
            redis.port()
        ))];
        let mut fleet = Fleet::start("pattern", vars).await;
        fleet.is_known(&redis).await;
        let cut = Moment::now();
        redis.cmd::<()>(refuse).await;
        fleet.is_degraded().await;
        let error = fleet.gateway.wait_line("Redis error for publisher").await;
        let error = error["error"].to_string().to_uppercase();
        assert!(error.contains(code), "{error}");
        fleet.works_alone().await;
        fleet.hears(&redis).await;
        redis.cmd::<()>(relent).await;
        let denied = Duration::from_secs(5); // only an operator can change that, so it is tried rarely
        fleet.is_restored_within(denied + BACK, &redis, cut).await;
        assert_eq!(fleet.gaps(), [], "nothing was missed");
    }
}

/// The master dies, and Sentinel promotes the replica.
async fn promotes(mode: &str) {
    let mut one = TempRedis::new().await;
    let two = TempRedis::new().await;
    two.follow(&one).await;
    let sentinel = TempSentinel::watch(&one).await;
    sentinel.wait_replicas(1).await;
    let vars = [redis_url(&sentinel.url())];
    let mut fleet = Fleet::start(mode, vars).await;
    fleet.is_known(&one).await;
    let cut = Moment::now();
    one.kill();
    fleet.is_degraded().await;
    fleet.works_alone().await;
    sentinel.wait_master(&two).await;
    fleet.is_restored(&two, cut).await;
    fleet.told_of_one_gap(cut, cut);
}

/// Sentinel is told to fail over while the master lives.
async fn demotes(mode: &str) {
    let (one, two) = (TempRedis::new().await, TempRedis::new().await);
    two.follow(&one).await;
    let sentinel = TempSentinel::watch(&one).await;
    sentinel.wait_replicas(1).await;
    let vars = [redis_url(&sentinel.url())];
    let mut fleet = Fleet::start(mode, vars).await;
    fleet.is_known(&one).await;
    let cut = Moment::now();
    sentinel.fail_over().await;
    sentinel.wait_master(&two).await;
    // Sentinel leaves the old one a master for ten seconds more, so nothing but its word tells of the new one.
    let info: String = one.cmd(&["INFO", "replication"]).await;
    assert!(info.contains("role:master"), "{info}");
    eventually_within(BACK, "the old master is left", async || {
        let list: String = one.cmd(&["CLIENT", "LIST"]).await;
        !list.contains(" resp=3") // as none but ours speak
    })
    .await;
    fleet.is_restored(&two, cut).await;
    fleet.told_of_one_gap(cut.later(2_000), cut);
}

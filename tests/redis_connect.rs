//! The way to Redis is long, its name is slow, or has addresses that are dead, silent or those of a replica.
#![allow(clippy::disallowed_methods, reason = "this is a host")]

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use support::{
    Authority, Device, Gateway, GatewayBuilder, OwnNetwork, Relay, TempRedis, eventually_within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rediss_over_a_round_trip_of_800_ms_connects() {
    let authority = Authority::new();
    let redis = TempRedis::builder().tls(&authority).start().await;
    let far = (Ipv4Addr::LOCALHOST, redis.tls_port()).into();
    let relay = Relay::start(far, Duration::from_millis(800)).await;
    let gateway = builder(format!("rediss://localhost:{}", relay.port()))
        .var(
            "FASTSOCK_REDIS_CA",
            authority.ca_path().display().to_string(),
        )
        .start()
        .await;
    is_connected(&gateway).await;
    works(&gateway, &redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_longer_than_it_may_is_named_with_the_setting() {
    let redis = TempRedis::new().await;
    let far = (Ipv4Addr::LOCALHOST, redis.port()).into();
    let relay = Relay::start(far, Duration::from_secs(2)).await;
    let gateway = builder(format!("redis://127.0.0.1:{}", relay.port()))
        .var("FASTSOCK_REDIS_CONNECT_TIMEOUT", "100")
        .start()
        .await;
    let line = gateway.wait_line("Redis error for publisher").await;
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("within 100 ms (FASTSOCK_REDIS_CONNECT_TIMEOUT)"),
        "{error}"
    );
}

/// TLS where there is none, and none where there is TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_that_the_other_scheme_is_meant() {
    let authority = Authority::new();
    let redis = TempRedis::builder().tls(&authority).start().await;
    let (plain, tls) = (redis.port(), redis.tls_port());
    let to_tls = "; it speaks TLS there: FASTSOCK_REDIS_URL takes rediss://";
    let to_plain = "; it speaks no TLS there: FASTSOCK_REDIS_URL takes redis:// for that";
    for (name, value, hint) in [
        (
            "FASTSOCK_REDIS_URL",
            format!("redis://127.0.0.1:{tls}"),
            to_tls,
        ),
        ("REDIS_PORT", tls.to_string(), to_tls),
        (
            "FASTSOCK_REDIS_URL",
            format!("rediss://localhost:{plain}"),
            to_plain,
        ),
    ] {
        let gateway = Gateway::builder()
            .var("FASTSOCK_REDIS_CONNECT_TIMEOUT", "1000")
            .var(name, value);
        let mut check = gateway.arg("--check").launch();
        assert_eq!(check.exit_code().await, Some(2));
        let lines = check.stdout();
        let line = lines.iter().find(|line| line.starts_with("redis: "));
        let line = line.unwrap_or_else(|| panic!("{}", check.output()));
        assert!(line.contains(hint) && line.contains(name), "{line}");
    }
}

#[test]
fn a_name_whose_first_address_is_dead_or_silent_leads_to_the_next() {
    let test = "a_name_whose_first_address_is_dead_or_silent_leads_to_the_next";
    OwnNetwork::of(test).run_with_hosts(|hosts| {
        fs::write(hosts, TWO_ADDRESSES).unwrap();
        within_a_runtime(async {
            for is_dead in [true, false] {
                let redis = TempRedis::builder().listen(SECOND).start().await;
                let _first = deaf((Ipv4Addr::LOCALHOST, redis.port()), is_dead);
                let gateway = builder(format!("redis://redis.test:{}", redis.port()))
                    .start()
                    .await;
                is_connected(&gateway).await;
                works(&gateway, &redis).await;
            }
        });
    });
}

#[test]
fn a_name_whose_first_address_is_that_of_a_replica_leads_to_the_master() {
    let test = "a_name_whose_first_address_is_that_of_a_replica_leads_to_the_master";
    OwnNetwork::of(test).run_with_hosts(|hosts| {
        fs::write(hosts, TWO_ADDRESSES).unwrap();
        within_a_runtime(async {
            let master = TempRedis::builder().listen(SECOND).start().await;
            let replica = TempRedis::builder().port(master.port()).start().await;
            replica.follow(&master).await;
            let gateway = builder(format!("redis://redis.test:{}", master.port()))
                .start()
                .await;
            is_connected(&gateway).await;
            works(&gateway, &master).await;
        });
    });
}

#[test]
fn a_name_that_takes_a_second_and_a_half_to_be_found_is_waited_for() {
    let test = "a_name_that_takes_a_second_and_a_half_to_be_found_is_waited_for";
    OwnNetwork::of(test).run_with_resolver(|resolver| {
        fs::write(resolver, "nameserver 127.0.0.1\noptions timeout:10\n").unwrap();
        let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("the port is free here");
        thread::spawn(move || answer_late(&names, Duration::from_millis(1500)));
        within_a_runtime(async {
            let redis = TempRedis::new().await;
            let gateway = builder(format!("redis://redis.test:{}", redis.port()))
                .start()
                .await;
            is_connected(&gateway).await;
            works(&gateway, &redis).await;
        });
    });
}

fn builder(url: String) -> GatewayBuilder {
    Gateway::builder().var("FASTSOCK_REDIS_URL", url)
}

async fn is_connected(gateway: &Gateway) {
    for word in ["publisher", "subscriber"] {
        let connected = format!("Connected to Redis as {word}");
        eventually_within(FAR, &connected, async || {
            !gateway.lines_with(&connected).is_empty()
        })
        .await;
    }
}

/// A device is known to Redis, and hears what is published to it.
async fn works(gateway: &Gateway, redis: &TempRedis) {
    let mut device = Device::connect(gateway.addr(), "dev").await;
    redis.wait_field("fastsock:clients", "dev").await;
    redis.publish("fastsock:client:dev", "hello").await;
    assert_eq!(device.recv_text().await, "hello");
}

/// An address that never answers: a dead one not even the request to connect.
fn deaf(addr: (Ipv4Addr, u16), is_dead: bool) -> Vec<Socket> {
    let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let addr = std::net::SocketAddr::from(addr).into();
    let listener = tcp();
    listener.bind(&addr).expect("the port is free there");
    listener
        .listen(if is_dead { 0 } else { 128 })
        .expect("it is bound");
    let mut sockets = vec![listener];
    // Nobody accepts. With its backlog full, the kernel drops what comes.
    for _ in 0..if is_dead { 4 } else { 0 } {
        let filler = tcp();
        filler.set_nonblocking(true).expect("it is open");
        let _ = filler.connect(&addr);
        sockets.push(filler);
    }
    sockets
}

/// Answers each question for an IPv4 address with 127.0.0.1, and every other with nothing.
fn answer_late(names: &UdpSocket, time: Duration) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = names.recv_from(&mut packet) {
        let (header, question) = packet[..length].split_at(12);
        // Behind the name, which ends in a 0, are type and class.
        let end = question.iter().position(|byte| *byte == 0).expect("a name") + 5;
        let question = &question[..end];
        let is_ipv4 = question[end - 4..end - 2] == [0, 1];
        let mut answer = header[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
        answer.extend(question);
        if is_ipv4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        let names = names.try_clone().expect("a descriptor");
        thread::spawn(move || {
            thread::sleep(time); // what this is about
            names.send_to(&answer, from)
        });
    }
}

fn within_a_runtime(body: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(body);
}

/// A hosts file. The second is named first, since the resolver puts the first one first.
const TWO_ADDRESSES: &str = "127.0.0.2 redis.test\n127.0.0.1 redis.test\n";
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How long connecting may take over a long way, with all that follows.
const FAR: Duration = Duration::from_secs(40);

//! Everybody at once.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use support::{Device, Gateway, TempRedis, eventually_within};

const CROWD: usize = 2000;
/// Redis is slow too while they all come.
const MORE_TIME: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_devices_that_reconnect_at_once_are_all_let_in() {
    for mode in ["pattern", "exact"] {
        let redis = TempRedis::new().await;
        let gateway = Gateway::builder()
            .var("REDIS_PORT", redis.port().to_string())
            .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
            .start()
            .await;
        gateway.wait_line("Connected to Redis as subscriber").await;
        gateway.wait_line("Connected to Redis as publisher").await;
        let first = connect_all(gateway.addr()).await;
        redis.wait_field("fastsock:clients", "dev1999").await;
        drop(first);
        let mut second = connect_all(gateway.addr()).await;
        // Whoever has a 101 is reached.
        let mut connection = redis.connection().await;
        let mut publish = redis::pipe();
        for number in 0..CROWD {
            publish
                .publish(format!("fastsock:client:dev{number}"), number)
                .ignore();
        }
        publish.exec_async(&mut connection).await.unwrap();
        for (number, device) in second.iter_mut().enumerate() {
            assert_eq!(device.recv_text().await, number.to_string(), "{mode}");
        }
        eventually_within(MORE_TIME, "all are in the hash", async || {
            redis.cmd::<usize>(&["HLEN", "fastsock:clients"]).await == CROWD
        })
        .await;
        drop(second);
        eventually_within(MORE_TIME, "nobody is in the hash", async || {
            redis.cmd::<usize>(&["HLEN", "fastsock:clients"]).await == 0
        })
        .await;
    }
}

async fn connect_all(addr: SocketAddr) -> Vec<Device> {
    let connect = |number| async move { Device::connect(addr, &format!("dev{number}")).await };
    join_all((0..CROWD).map(connect)).await
}

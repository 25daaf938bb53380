//! Messages of one device or several that share a POST.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fastsock::{Bridge, Config, Secret, SpoolKind};
use http::HeaderMap;
use serde_json::Value;
use standardwebhooks::Webhook;
use support::{Backend, DEADLINE, Device, Received, Reply, eventually, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_share_posts_and_each_keeps_its_order() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let bridge = start(config(&backend, 16)).await;
    let mut devices = connect(&bridge, 40).await;
    for n in 0..10 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    delivered(&bridge, 400).await;
    let all = backend.requests();
    assert!(all.len() < 200, "{} POSTs for 400 messages", all.len());
    let (mut last, mut ids, mut keys) = (HashMap::new(), HashSet::new(), HashSet::new());
    for request in &all {
        let batch = messages(request);
        assert!((1..=16).contains(&batch.len()), "{}", batch.len());
        assert!(keys.insert(request.header("idempotency-key").unwrap()));
        assert_eq!(request.header("x-fastsock-seq"), None);
        assert_eq!(request.header("x-fastsock-epoch"), None);
        for message in batch {
            let (_, number) = message.data.split_once('#').unwrap();
            let number: u64 = number.parse().unwrap();
            let before = last.insert(message.client_id, number);
            assert_eq!(before.map_or(0, |before| before + 1), number);
            assert!(ids.insert(message.id), "each has an id of its own");
        }
    }
    assert_eq!(last.len(), 40);
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_backend_does_not_want_costs_exactly_that_message() {
    let backend = Backend::start().await;
    backend.answer(|request| {
        let has_bad = messages(request).iter().any(|m| m.data == "bad#2");
        Reply::new(if has_bad { 422 } else { 200 }).after(Duration::from_millis(10))
    });
    let bridge = start(config(&backend, 16)).await;
    let mut devices = connect(&bridge, 20).await;
    for n in 0..5 {
        for (id, device) in devices.iter_mut().enumerate() {
            let kind = if (id, n) == (7, 2) { "bad" } else { "good" };
            device.send(format!("{kind}#{n}")).await;
        }
    }
    delivered(&bridge, 99).await;
    eventually("the books are closed", async || {
        bridge.stats().uplink.held == 0
    })
    .await;
    assert_eq!(bridge.stats().uplink.lost.rejected, 1);
    let mut seen = HashSet::new();
    for request in backend.requests().iter().filter(|r| r.is_delivered()) {
        for message in messages(request) {
            assert!(seen.insert(message.id), "nothing was delivered twice");
        }
    }
    assert_eq!(seen.len(), 99);
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_makes_the_backend_fail_does_not_take_others_with_it() {
    let backend = Backend::start().await;
    backend.answer(|request| {
        let has_bad = messages(request).iter().any(|m| m.data == "bad#0");
        Reply::new(if has_bad { 500 } else { 200 }).after(Duration::from_millis(10))
    });
    let bridge = start(config(&backend, 4)).await;
    let mut devices = connect(&bridge, 12).await;
    for (id, device) in devices.iter_mut().enumerate() {
        let kind = if id == 5 { "bad" } else { "good" };
        device.send(format!("{kind}#0")).await;
    }
    delivered(&bridge, 11).await;
    assert_eq!(bridge.stats().uplink.held, 1);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chatty_device_fills_batches_in_its_order() {
    let backend = Backend::start().await;
    backend.answer(|request| match messages(request)[0].data.as_str() {
        "temp#0" => Reply::ok().after(Duration::from_secs(2)), // the others gather meanwhile
        _ => Reply::ok(),
    });
    let bridge = start(config(&backend, 16)).await;
    let mut devices = connect(&bridge, 1).await;
    for n in 0..400 {
        devices[0].send(format!("temp#{n}")).await;
    }
    delivered(&bridge, 400).await;
    let all = backend.requests();
    assert!(all.len() < 200, "{} POSTs for 400 messages", all.len());
    assert!(all.iter().all(|request| messages(request).len() <= 16));
    assert!(all.iter().any(|request| messages(request).len() == 16));
    assert_eq!(taken(&backend), temps(400));
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_several_messages_in_a_batch_keeps_its_order_whatever_is_answered() {
    for is_durable in [false, true] {
        for (name, trouble, times, is_lost) in [
            ("not wanted", Reply::new(422), usize::MAX, true),
            ("gone", Reply::new(410), usize::MAX, true),
            ("not found for a while", Reply::new(404), 7, false),
            ("not available for a while", Reply::new(503), 3, false),
            ("too many for a while", Reply::new(429), 2, false),
            ("a broken connection", Reply::reset(), 2, false),
        ] {
            let backend = Backend::start().await;
            let mut left = times;
            backend.answer(move |request| {
                let batch = messages(request);
                let is_bad = batch.iter().any(|message| message.data == "temp#7");
                match &batch[0].data[..] {
                    _ if is_bad && left > 0 => {
                        left -= 1;
                        trouble.clone()
                    }
                    "temp#0" => Reply::ok().after(Duration::from_millis(300)), // the others gather meanwhile
                    _ => Reply::ok(),
                }
            });
            let directory = tempfile::tempdir().unwrap();
            let mut config = config(&backend, 16);
            if is_durable {
                config = config
                    .spool(SpoolKind::Disk)
                    .data_dir(Some(directory.path().into()));
            }
            let bridge = start(config).await;
            let mut devices = connect(&bridge, 2).await;
            for n in 0..40 {
                devices[0].send(format!("temp#{n}")).await;
            }
            devices[1].send("other").await;
            let count = if is_lost { 40 } else { 41 };
            delivered(&bridge, count).await;
            eventually("nothing is held", async || bridge.stats().uplink.held == 0).await;
            let mut expected = temps(40);
            if is_lost {
                expected.remove(7);
            }
            assert_eq!(taken(&backend), expected, "{name}, durable: {is_durable}");
            let lost = bridge.stats().uplink.lost;
            assert_eq!(lost.total(), u64::from(is_lost), "{name}");
            end(bridge).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_signed_as_a_whole() {
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let config = config(&backend, 8).remote_secret(Some(Secret::new(SECRET)));
    let bridge = start(config).await;
    for device in &mut connect(&bridge, 20).await {
        device.send("temp#0").await;
    }
    delivered(&bridge, 20).await;
    let all = backend.requests();
    assert!(all.iter().any(|request| messages(request).len() > 1));
    let webhook = Webhook::new(SECRET).unwrap();
    for request in all {
        let mut headers = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, request.header(name).unwrap().parse().unwrap());
        }
        webhook.verify(&request.body, &headers).expect("it is good");
        assert_eq!(
            request.header("webhook-id"),
            request.header("idempotency-key")
        );
    }
    end(bridge).await;
}

#[tokio::test]
async fn what_a_batch_cannot_have_is_refused_at_the_start() {
    let backend = Backend::start().await;
    let batched = config(&backend, 2);
    for (config, setting) in [
        (batched.clone().remote_reply(true), "FASTSOCK_REMOTE_REPLY"),
        (
            batched.remote_cloudevents(true),
            "FASTSOCK_REMOTE_CLOUDEVENTS",
        ),
    ] {
        let error = Bridge::builder(config).start().await.unwrap_err();
        let line = error.to_string();
        assert!(
            line.starts_with("FASTSOCK_REMOTE_BATCH: ") && line.contains(setting),
            "{line}"
        );
    }
}

/// One object of a batch.
struct Message {
    client_id: String,
    data: String,
    id: String,
}

fn messages(request: &Received) -> Vec<Message> {
    let Value::Array(objects) = request.json() else {
        panic!("no array: {:?}", request.body);
    };
    let text = |object: &Value, key: &str| object[key].as_str().unwrap().to_owned();
    objects
        .iter()
        .map(|object| Message {
            client_id: text(object, "client_id"),
            data: text(object, "data"),
            id: text(object, "id"),
        })
        .collect()
}

fn temps(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("temp#{n}")).collect()
}

/// What the first device said, as the backend has taken it.
fn taken(backend: &Backend) -> Vec<String> {
    let all = backend.requests();
    let delivered = all.iter().filter(|request| request.is_delivered());
    let messages = delivered.flat_map(messages);
    let own = messages.filter(|message| message.client_id == "dev0");
    own.map(|message| message.data).collect()
}

fn config(backend: &Backend, most: usize) -> Config {
    support::config(backend).remote_batch(most)
}

async fn connect(bridge: &Bridge, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    devices
}

async fn delivered(bridge: &Bridge, count: u64) {
    eventually(&format!("{count} are delivered"), async || {
        bridge.stats().uplink.delivered == count
    })
    .await;
}

async fn end(bridge: Bridge) {
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
}

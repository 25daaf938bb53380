//! The steps of a message's way, each by itself: `make bench-micro`. What the kernel does for it is not in here.
//! With the argument `metrics` it prints what the metrics of a message take, and nothing else: for the table of `make bench`.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use fastsock_inside::inside::micro::{
    Dispatch, Uplinks, metrics, parts, post_body, request_head, uplink,
};

fn main() {
    if std::env::args().any(|arg| arg == "metrics") {
        for (message, ns) in metrics() {
            println!("{message} {ns:.1}");
        }
        return;
    }
    println!("bytes that an idle device takes, without what the allocator adds:");
    for (part, bytes) in parts() {
        println!("{bytes:6}  {part}");
    }
    divan::main();
}

const HEAD: &[u8] = b"GET /?token=device-0001 HTTP/1.1\r\nHost: gateway.example:3000\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    User-Agent: firmware/1.0\r\n\r\n";

const DEVICES: [u64; 3] = [1, 1_000, 18_000];

fn text(bytes: usize) -> Bytes {
    Bytes::from("x".repeat(bytes))
}

#[divan::bench]
fn head(bencher: Bencher) {
    assert!(request_head(HEAD));
    bencher.bench_local(|| request_head(black_box(HEAD)));
}

#[divan::bench(args = [16, 128, 4096])]
fn body(bencher: Bencher, bytes: usize) {
    let uplink = uplink("device-0001", &text(bytes));
    bencher.bench_local(|| post_body(black_box(&uplink)));
}

#[divan::bench(args = DEVICES)]
fn dispatch(bencher: Bencher, devices: u64) {
    let (mut dispatch, text) = (Dispatch::new(devices), text(128));
    assert!(dispatch.deliver(&text));
    bencher.bench_local(|| dispatch.deliver(&text));
}

/// Each sample is one message of every device; the column of items says how many that are a second.
#[divan::bench(args = DEVICES)]
fn lane(bencher: Bencher, devices: u64) {
    let (uplinks, text) = (Uplinks::new(devices), text(128));
    bencher
        .counter(ItemsCount::new(devices))
        .bench_local(|| uplinks.round(&text));
}

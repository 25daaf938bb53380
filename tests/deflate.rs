//! permessage-deflate (RFC 7692): what is agreed on, messages in both directions, and devices that abuse it. Cases with a number are
//! those of sections 12 and 13 of the Autobahn suite, with fewer messages each.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use data_encoding::BASE64;
use fastsock::{Bridge, ClientId, Config, Payload, UplinkBinary};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use support::{Backend, Device, End, Frame, Gateway, RawDevice, opcode, within};

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
const RSV1: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_arrive_in_both_directions() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config).await;
    // 12.1 and 12.2: sizes of messages. 12.3 to 12.5: sizes of fragments.
    let sizes = [
        0, 1, 16, 64, 127, 128, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072,
    ];
    let mut cases: Vec<_> = sizes.iter().map(|size| (*size, usize::MAX)).collect();
    cases.extend([256, 1024, 4096, 32_768].map(|fragment| (131_072, fragment)));
    cases.extend([1, 7].map(|fragment| (1024, fragment)));
    for (n, (size, fragment)) in cases.into_iter().enumerate() {
        let name = format!("dev{n}");
        let mut device = Compressing::connect(bridge.local_addr(), &name, OFFER, ANSWER).await;
        let texts: Vec<_> = (0..10).map(|seed| text(size, seed)).collect();
        for text in &texts {
            let packed = packed(text.as_bytes());
            device.send_in(opcode::TEXT, &packed, fragment).await;
        }
        let bytes = text(size, 11).into_bytes();
        device
            .send_in(opcode::BINARY, &packed(&bytes), fragment)
            .await;
        let mut expected = texts.clone();
        expected.push(BASE64.encode(&bytes));
        let delivered = backend.wait_delivered(&name, expected.len()).await;
        assert!(delivered == expected, "{size} in fragments of {fragment}");

        let id = ClientId::new(&name).unwrap();
        for text in &texts {
            bridge.send(&id, text.clone().into()).await.unwrap();
        }
        let binary = Payload::binary(bytes.clone());
        bridge.send(&id, binary).await.unwrap();
        for text in &texts {
            let (frame, plain) = device.message().await;
            assert_eq!(frame.opcode, opcode::TEXT);
            assert!(plain == text.as_bytes(), "{size}");
            assert_eq!(frame.reserved, if size >= 128 { RSV1 } else { 0 }, "{size}");
            assert!(size < 1024 || frame.payload.len() < size / 2, "{size}");
        }
        let (frame, plain) = device.message().await;
        assert_eq!((frame.opcode, plain == bytes), (opcode::BINARY, true));
    }
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_are_answered_by_the_rfc_and_kept() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config).await;
    // 13.1 to 13.7, and a window that zlib has not.
    for (n, (offer, bits)) in [
        ("permessage-deflate", Some(15)),
        ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", Some(15)),
        ("permessage-deflate; server_max_window_bits=9", Some(9)),
        ("permessage-deflate; server_max_window_bits=15; client_max_window_bits=9", Some(15)),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=9", Some(9)),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=15", Some(15)),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10, permessage-deflate",
            Some(10),
        ),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; level=9", None),
        ("x-webkit-deflate-frame", None),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = bits.map(|bits| match offer.contains("server_max_window_bits") {
            true => format!("{ANSWER}; server_max_window_bits={bits}"),
            false => ANSWER.to_owned(),
        });
        let name = format!("dev{n}");
        let header = format!("Sec-WebSocket-Extensions: {offer}");
        let answer = answer.unwrap_or_default();
        let mut device =
            Compressing::connect(bridge.local_addr(), &name, &header, &answer).await;
        // What repeats lies further apart than the smallest window.
        let text = text(600, 1).repeat(5);
        bridge
            .send(&ClientId::new(&name).unwrap(), text.clone().into())
            .await
            .unwrap();
        let frame = device.device.frame().await;
        assert_eq!(frame.reserved, if bits.is_some() { RSV1 } else { 0 }, "{offer}");
        if let Some(bits) = bits {
            assert!(inflated(&frame.payload, bits) == text.as_bytes(), "{offer}");
            device.send_in(opcode::TEXT, &packed(text.as_bytes()), usize::MAX).await;
        } else {
            device.device.send(&Frame::text(text.clone())).await;
        }
        assert!(backend.wait_delivered(&name, 1).await == [text], "{offer}");
    }
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_rfc_and_all_ways_to_cut_them() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config).await;
    let hello: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let stored: &[u8] = &[
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ];
    let last: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let two: &[u8] = &[
        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
    ];
    for (n, example) in [hello, stored, last, two].into_iter().enumerate() {
        let name = format!("dev{n}");
        let mut device = Compressing::connect(bridge.local_addr(), &name, OFFER, ANSWER).await;
        for at in 0..=example.len() {
            // A ping may come between any two fragments, and a plain message between any two messages.
            let first = Frame::text(&example[..at]).reserved(RSV1).unfinished();
            device.device.send(&first).await;
            device.device.send(&Frame::ping("between")).await;
            let rest = Frame::continuation(&example[at..]);
            for byte in rest.encode() {
                device.device.write([byte]).await;
            }
            assert_eq!(device.device.frame().await.payload, b"between");
            device.device.send(&Frame::text("pl").unfinished()).await;
            device.device.send(&Frame::continuation("ain")).await;
        }
        let expected = ["Hello", "plain"].repeat(example.len() + 1);
        let delivered = backend.wait_delivered(&name, expected.len()).await;
        assert_eq!(delivered, expected);
    }
    // What came with the request head counts too.
    let mut device = RawDevice::connect(bridge.local_addr()).await;
    let mut bytes = RawDevice::upgrade_request("/?token=eager", &[OFFER]).into_bytes();
    bytes.extend(Frame::text(hello).reserved(RSV1).encode());
    device.write(bytes).await;
    assert_eq!(backend.wait_delivered("eager", 1).await, ["Hello"]);
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_abuses_it_is_closed() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config).await;
    let zeros = packed(&vec![0; 1 << 20]);
    let large = packed(text((1 << 20) + 1, 1).as_bytes());
    let large_noise = noise(2 << 20);
    let hello = Frame::text([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).reserved(RSV1);
    let empty_blocks = [0, 0, 0, 0xff, 0xff].repeat(300_000);
    let with_bits = |frame: Frame, bits: u8| frame.reserved(bits);
    for (n, (what, frames, code)) in [
        (
            "1 MiB of zeros in 1 KiB",
            vec![with_bits(Frame::binary(zeros), RSV1)],
            1009,
        ),
        (
            "a byte beyond the limit",
            vec![with_bits(Frame::text(large), RSV1)],
            1009,
        ),
        (
            "a length beyond all limits",
            vec![hello.clone().announcing(1 << 62)],
            1009,
        ),
        (
            "blocks with nothing in them",
            vec![with_bits(Frame::text(empty_blocks), RSV1)],
            1009,
        ),
        (
            "what is not compressed",
            vec![with_bits(Frame::text(large_noise), RSV1)],
            1009,
        ),
        (
            "a block of a kind there is none",
            vec![with_bits(Frame::text([0xff; 8]), RSV1)],
            1002,
        ),
        (
            "bytes that are no text",
            vec![with_bits(Frame::text(packed(b"\xff\xfe")), RSV1)],
            1007,
        ),
        ("RSV2", vec![with_bits(hello.clone(), 2)], 1002),
        ("RSV1 and RSV3", vec![with_bits(hello.clone(), 5)], 1002),
        (
            "RSV1 on a ping",
            vec![with_bits(Frame::ping("x"), RSV1)],
            1002,
        ),
        (
            "RSV1 on a continuation",
            vec![
                hello.clone().unfinished(),
                with_bits(Frame::continuation("x"), RSV1),
            ],
            1002,
        ),
        (
            "RSV1 on a continuation of a plain message",
            vec![
                Frame::text("x").unfinished(),
                with_bits(Frame::continuation("x"), RSV1),
            ],
            1002,
        ),
        (
            "a message within a message",
            vec![hello.clone().unfinished(), hello.clone()],
            1002,
        ),
        (
            "a plain one within one",
            vec![hello.clone().unfinished(), Frame::text("x")],
            1002,
        ),
        (
            "one within a plain one",
            vec![Frame::text("x").unfinished(), hello.clone()],
            1002,
        ),
        (
            "a continuation of nothing",
            vec![Frame::continuation("x")],
            1002,
        ),
        ("no mask", vec![hello.clone().unmasked()], 1002),
        ("a ping of 126 bytes", vec![Frame::ping(vec![0; 126])], 1002),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("rude{n}");
        let mut device = Compressing::connect(bridge.local_addr(), &name, OFFER, ANSWER).await;
        for frame in frames {
            if device.device.try_write(frame.encode()).await.is_err() {
                break; // closed already
            }
        }
        match device.device.end().await {
            End::Close(closed, _) => assert_eq!(closed, Some(code), "{what}"),
            end => panic!("{what}: {end:?}"),
        }
    }
    assert_eq!(bridge.stats().uplink.received, 0);

    // Just within the bounds.
    let mut device = Compressing::connect(bridge.local_addr(), "polite", OFFER, ANSWER).await;
    let large = text(1 << 20, 1);
    device
        .send_in(opcode::TEXT, &packed(large.as_bytes()), 1 << 16)
        .await;
    let spaces = " ".repeat(64 << 10);
    device
        .send_in(opcode::TEXT, &packed(spaces.as_bytes()), usize::MAX)
        .await;
    assert!(backend.wait_delivered("polite", 2).await == [large, spaces]);
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_read_for_a_while_gets_all_in_order() {
    let backend = Backend::start().await;
    let patient = |config: Config| {
        let config = config.outbox_bytes(1_usize << 30);
        config.write_timeout(Duration::from_secs(600))
    };
    let bridge = bridge(&backend, patient).await;
    let mut device = Compressing::connect(bridge.local_addr(), "slow", OFFER, ANSWER).await;
    let mut plain = Device::connect(bridge.local_addr(), "plain").await;
    let (slow, beside) = (
        ClientId::new("slow").unwrap(),
        ClientId::new("plain").unwrap(),
    );
    // Compressed, too small for it, and what does not get smaller, by turns; together more than sockets hold.
    let messages: Vec<_> = (0..90)
        .map(|n| match n % 3 {
            0 => Payload::text(text(100_000, n)),
            1 => Payload::text(format!("small {n}")),
            _ => Payload::binary(noise(200_000)),
        })
        .collect();
    for message in &messages {
        bridge.send(&slow, message.clone()).await.unwrap();
        bridge.send(&beside, "beside".into()).await.unwrap();
        assert_eq!(plain.recv_text().await, "beside");
    }
    device.device.send(&Frame::ping("and now")).await;
    let (mut got, mut has_pong) = (Vec::new(), false);
    while got.len() < messages.len() || !has_pong {
        let (frame, bytes) = device.message().await;
        match frame.opcode {
            opcode::PONG => has_pong = true,
            _ => got.push(bytes),
        }
    }
    assert!(
        got.iter()
            .zip(&messages)
            .all(|(got, sent)| got[..] == sent.as_bytes()[..])
    );
    assert_eq!(bridge.stats().downlink.lost.total(), 0);
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_and_envelopes_go_together_with_it() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config.ack(true)).await;
    let more = format!("{OFFER}\r\nSec-WebSocket-Protocol: fastsock.v1.ack");
    let mut device = Compressing::connect(bridge.local_addr(), "acks", &more, ANSWER).await;
    let said = text(300, 1);
    let envelope = serde_json::json!({ "id": "m1", "data": said }).to_string();
    device
        .send_in(opcode::TEXT, &packed(envelope.as_bytes()), 50)
        .await;
    let (frame, ack) = device.message().await;
    assert_eq!(frame.reserved, 0, "what the gateway says itself is short");
    assert_eq!(ack, br#"{"ack":"m1"}"#);
    assert_eq!(backend.wait_delivered("acks", 1).await, [said.as_str()]);
    let id = ClientId::new("acks").unwrap();
    bridge.send(&id, said.clone().into()).await.unwrap();
    let (frame, envelope) = device.message().await;
    assert_eq!(frame.reserved, RSV1);
    let envelope: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
    assert_eq!(envelope["data"], said.as_str());
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_saves_is_counted_in_both_directions() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config).await;
    let mut device = Compressing::connect(bridge.local_addr(), "dev1", OFFER, ANSWER).await;
    let said = text(9000, 1);
    let up = packed(said.as_bytes());
    device.send_in(opcode::TEXT, &up, 1000).await;
    device.device.send(&Frame::text("plain")).await;
    backend.wait_delivered("dev1", 2).await;
    let id = ClientId::new("dev1").unwrap();
    let mut down = 0;
    for message in [said.clone(), text(100, 1)] {
        bridge.send(&id, message.into()).await.unwrap();
        let (frame, _) = device.message().await;
        down += usize::from(frame.reserved == RSV1) * frame.payload.len();
    }
    let metrics = bridge.metrics(fastsock::MetricsFormat::Text);
    for (name, up, down) in [
        ("compressed_messages", 1, 1),
        ("compressed_bytes", up.len(), down),
        ("inflated_bytes", said.len(), said.len()),
    ] {
        for (direction, value) in [("up", up), ("down", down)] {
            let line = format!("fastsock_{name}_total{{direction=\"{direction}\"}} {value}\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
    }
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_device_gets_a_message_for_many_in_its_own_window_and_envelope() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend, |config| config.ack(true)).await;
    let small = format!("{ANSWER}; server_max_window_bits=9");
    let (small_offer, acks) = (
        format!("{OFFER}; server_max_window_bits=9"),
        format!("{OFFER}\r\nSec-WebSocket-Protocol: fastsock.v1.ack"),
    );
    let kinds = [
        (OFFER, ANSWER, 15, false),
        (&small_offer, &small, 9, false),
        (&acks, ANSWER, 15, true),
        ("X-None: 1", "", 0, false),
    ];
    let mut devices = Vec::new();
    for n in 0..12 {
        let (offer, answer, bits, has_envelope) = kinds[n % 4];
        let name = format!("dev{n}");
        let device = Compressing::connect(bridge.local_addr(), &name, offer, answer).await;
        devices.push((device.device, bits, has_envelope));
    }
    // What repeats lies further apart than the smallest window.
    let texts: Vec<_> = (0..3).map(|seed| text(600, seed).repeat(5)).collect();
    for text in &texts {
        bridge.broadcast(text.clone().into()).await.unwrap();
    }
    let mut packed = [(); 3].map(|()| Vec::new());
    for (n, (device, bits, has_envelope)) in devices.iter_mut().enumerate() {
        for text in &texts {
            let frame = device.frame().await;
            assert_eq!(frame.reserved, if *bits > 0 { RSV1 } else { 0 }, "{n}");
            let mut plain = frame.payload.clone();
            if *bits > 0 {
                plain = inflated(&frame.payload, *bits);
                packed[n % 4].push(frame.payload);
            }
            if *has_envelope {
                let envelope: serde_json::Value = serde_json::from_slice(&plain).unwrap();
                plain = envelope["data"].as_str().unwrap().into();
            }
            assert!(plain == text.as_bytes(), "{n}");
        }
    }
    let bytes: usize = packed.iter().flatten().map(Vec::len).sum();
    for (name, value) in [("compressed_messages", 27), ("compressed_bytes", bytes)] {
        let line = format!("fastsock_{name}_total{{direction=\"down\"}} {value}\n");
        let metrics = bridge.metrics(fastsock::MetricsFormat::Text);
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    bridge.stop(support::DEADLINE).await;
}

/// `websockets` offers it unasked, with `client_max_window_bits`.
#[tokio::test]
async fn the_python_library_compresses_in_both_directions() {
    let python = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/venv/bin/python"
    );
    let backend = Backend::start().await;
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_DEFLATE", "on")
        .var("FASTSOCK_REMOTE_REPLY", "on")
        .var("REMOTE_URL", backend.url())
        .start()
        .await;
    let text = text(50_000, 1);
    backend.answer_all(support::Reply::ok().body(text.clone()));
    let script = r"
import asyncio, sys, websockets
async def main(url):
    async with websockets.connect(url) as device:
        assert [e.name for e in device.protocol.extensions] == ['permessage-deflate']
        for n in range(20):
            await device.send('x' * n * 1000)
            print(len(await device.recv()))
        await device.send([c for c in 'fragments'])
        print(len(await device.recv()))
asyncio.run(main(sys.argv[1]))
";
    let url = format!("ws://{}/?token=python", gateway.addr());
    let mut command = tokio::process::Command::new(python);
    command
        .args(["-c", script, &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = within("the client ends", command.output())
        .await
        .expect("run `scripts/setup test`");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = format!("{}\n", text.chars().count());
    assert_eq!(String::from_utf8_lossy(&output.stdout), line.repeat(21));
    let mut expected: Vec<_> = (0..20).map(|n| "x".repeat(n * 1000)).collect();
    expected.push("fragments".into());
    assert!(backend.wait_delivered("python", 21).await == expected);
}

/// A device that compresses.
struct Compressing {
    device: RawDevice,
}

impl Compressing {
    /// Connects with these header lines; `answer` is what the 101 must say of extensions.
    async fn connect(addr: SocketAddr, token: &str, more: &str, answer: &str) -> Self {
        let mut device = RawDevice::connect(addr).await;
        let target = format!("/?token={token}");
        device
            .write(RawDevice::upgrade_request(&target, &[more]))
            .await;
        let head = device.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut lines = head.lines();
        let said = lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        assert_eq!(said.unwrap_or_default(), answer, "{more}");
        Self { device }
    }

    /// Sends a compressed message in fragments of so many bytes.
    async fn send_in(&mut self, opcode: u8, packed: &[u8], fragment: usize) {
        let mut chunks: Vec<_> = packed.chunks(fragment).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let mut bytes = Vec::new();
        for (n, chunk) in chunks.iter().enumerate() {
            let mut frame = match n {
                0 => Frame::new(opcode, *chunk).reserved(RSV1),
                _ => Frame::continuation(*chunk),
            };
            if n + 1 < chunks.len() {
                frame = frame.unfinished();
            }
            bytes.extend(frame.encode());
        }
        self.device.write(bytes).await;
    }

    /// The next frame, and what is in it once inflated.
    async fn message(&mut self) -> (Frame, Vec<u8>) {
        let frame = self.device.frame().await;
        assert!(frame.is_final && frame.mask.is_none());
        let plain = match frame.reserved {
            0 => frame.payload.clone(),
            _ => inflated(&frame.payload, 15),
        };
        (frame, plain)
    }
}

/// A message as RFC 7692 §7.2.1 has it compressed.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len() + bytes.len() / 100 + 64);
    let mut compressor = Compress::new(Compression::default(), false);
    compressor
        .compress_vec(bytes, &mut packed, FlushCompress::Sync)
        .unwrap();
    if bytes.is_empty() {
        return vec![0];
    }
    packed.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec()
}

/// And inflated by somebody with so large a window.
fn inflated(packed: &[u8], window_bits: u8) -> Vec<u8> {
    let packed = [packed, &[0, 0, 0xff, 0xff]].concat();
    let mut plain = Vec::with_capacity(2 << 20);
    let mut inflater = Decompress::new_with_window_bits(false, window_bits);
    inflater
        .decompress_vec(&packed, &mut plain, FlushDecompress::Sync)
        .expect("it was compressed for this window");
    plain
}

/// JSON of a device, of so many bytes, another for each seed.
fn text(length: usize, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::new();
    while text.len() < length {
        let (sensor, value) = (random.u8(..40), random.u32(..100_000));
        text.push_str(&format!(
            r#"{{"sensor":"temperature-{sensor}","value":{value},"unit":"m°C"}},"#
        ));
    }
    let mut end = length;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(&" ".repeat(length - end));
    text
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

async fn bridge(backend: &Backend, set: impl FnOnce(Config) -> Config) -> Bridge {
    let config = Config::default()
        .websocket_port(0u16)
        .websocket_ping_interval(Duration::ZERO)
        .uplink_binary(UplinkBinary::Base64)
        .deflate(true)
        .remote_url(Some(backend.url()));
    Bridge::builder(set(config))
        .start()
        .await
        .expect("it starts")
}

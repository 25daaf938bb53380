//! RFC 6455 at the wire: sections 1 to 7, 9 and 10 of the Autobahn suite as our own cases, and what the suite lacks.
//!
//! Each case sends bytes and looks at what the backend gets, which pongs come back and how the session ends. The outcome is
//! in `conformance/report.md`; `FASTSOCK_BLESS=1` writes it anew.

mod conformance;

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, time::Duration};

use data_encoding::BASE64;
use fastsock::{Bridge, ClientId, UplinkBinary};
use support::{Backend, Device, End, Frame, Gateway, RawDevice, Received, eventually, opcode};

use crate::conformance::{Case, Ending, Outcome, Said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_conformance_report_ends_as_it_must() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend).await;
    let cases = conformance::all();
    let mut outcomes = Vec::new();
    for case in &cases {
        outcomes.push(play(bridge.local_addr(), case).await);
    }
    eventually("every uplink is delivered", async || {
        bridge.stats().uplink.held == 0
    })
    .await;
    let requests = backend.requests();
    for (case, outcome) in cases.iter().zip(&mut outcomes) {
        let of_case = requests.iter().filter(|r| r.client_id == case.id);
        outcome.uplinks = of_case.map(said).collect();
    }

    let wrong: Vec<_> = cases
        .iter()
        .zip(&outcomes)
        .filter(|(case, outcome)| case.expected != **outcome)
        .map(|(case, outcome)| {
            format!(
                "{} {}: {outcome}, not {}",
                case.id, case.what, case.expected
            )
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    compare("conformance/report.md", &report(&cases, &outcomes));

    let mut device = Device::connect(bridge.local_addr(), "afterwards").await;
    device.send("still here").await;
    backend.wait_delivered("afterwards", 1).await;
    drop(device);
    bridge.stop(support::DEADLINE).await;
}

#[tokio::test]
async fn an_announced_length_costs_no_memory_until_it_is_there() {
    let backend = Backend::start().await;
    let gateway = Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .start()
        .await;
    let before = gateway.process().resident_bytes();
    for length in [1 << 62, 16 << 20, (1 << 20) + 1] {
        for n in 0..50 {
            let mut device = RawDevice::seated(gateway.addr(), &format!("greedy-{n}")).await;
            device.send(&Frame::binary("x").announcing(length)).await;
            assert_eq!(device.end().await, End::Close(Some(1009), "too_big".into()));
        }
    }
    let grown = gateway.process().resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_a_connection_broke_is_forwarded() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend).await;
    let mut polite = RawDevice::seated(bridge.local_addr(), "fin").await;
    polite.send(&Frame::text("last words")).await;
    polite.half_close().await;
    assert_eq!(polite.end().await, End::Eof);

    let mut rude = RawDevice::seated(bridge.local_addr(), "rst").await;
    rude.send(&Frame::text("last words")).await;
    rude.send(&Frame::ping("")).await;
    assert_eq!(rude.frame().await.opcode, opcode::PONG);
    rude.write(&Frame::text("cut short").encode()[..8]).await;
    rude.reset();

    for id in ["fin", "rst"] {
        assert_eq!(backend.wait_delivered(id, 1).await, ["last words"]);
    }
    eventually("nobody is left", async || bridge.clients().is_empty()).await;
    assert_eq!(bridge.stats().uplink.received, 2);
    bridge.stop(support::DEADLINE).await;
}

/// RFC 7692 §5.1: whoever does not name an offered extension has declined it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offered_permessage_deflate_is_declined_and_the_device_works_plainly() {
    let backend = Backend::start().await;
    let bridge = bridge(&backend).await;
    let text = "x".repeat(10_000);
    for (n, offer) in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover, permessage-deflate",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("dev{n}");
        let headers = [("sec-websocket-extensions", offer)];
        let path = format!("/?token={name}");
        let connected = Device::request(bridge.local_addr(), &path, &headers).await;
        let mut device = connected.unwrap();
        let answered = device.response_headers().get("sec-websocket-extensions");
        assert_eq!(answered, None, "{offer}");
        device.send(text.clone()).await;
        assert_eq!(backend.wait_delivered(&name, 1).await, [text.as_str()]);
        let id = ClientId::new(&name).unwrap();
        bridge.send(&id, text.clone().into()).await.unwrap();
        assert_eq!(device.recv_text().await, text);
    }
    // Compressed all the same: "Hello" of RFC 7692 §7.2.3.1, with RSV1.
    let mut device = RawDevice::seated(bridge.local_addr(), "raw").await;
    device
        .write([
            0xc1, 0x87, 0, 0, 0, 0, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00,
        ])
        .await;
    assert_eq!(device.frame().await.close_code().0, Some(1002));
    bridge.stop(support::DEADLINE).await;
}

/// A bridge in front of the backend that keeps binary messages exact. It pings nobody: the first ping may come at any moment.
async fn bridge(backend: &Backend) -> Bridge {
    let config = support::loopback()
        .websocket_ping_interval(Duration::ZERO)
        .uplink_binary(UplinkBinary::Base64)
        .remote_url(Some(backend.url()));
    Bridge::builder(config).start().await.expect("it starts")
}

/// Plays one case. What the backend gets is looked at later.
async fn play(addr: SocketAddr, case: &Case) -> Outcome {
    let mut device = RawDevice::seated(addr, &case.id).await;
    for bytes in case.writes() {
        if device.try_write(bytes).await.is_err() {
            break; // refused early, which is fine where a refusal is expected
        }
    }
    let _ = device.try_write(Frame::ping(LAST_PING).encode()).await;
    let mut pongs = Vec::new();
    let ending = loop {
        match device.next().await {
            Ok(frame) if frame.opcode == opcode::PONG && frame.payload == LAST_PING => {
                break Ending::Open;
            }
            Ok(frame) if frame.opcode == opcode::PONG => pongs.push(frame.payload),
            Ok(frame) if frame.opcode == opcode::CLOSE => {
                break Ending::Closed(frame.close_code().0);
            }
            Ok(frame) => panic!("{}: {frame:?}", case.id),
            Err(_) => break Ending::Cut,
        }
    };
    // The closing handshake is completed in every case, and the gateway is the one that hangs up (RFC 6455 §7.1.1).
    if ending != Ending::Cut {
        let _ = device.try_write(Frame::close(1000, "").encode()).await;
        let rest = device.read_to_end().await;
        let answered = Frame::decode(&rest).map(|(frame, _)| frame.close_code().0);
        assert_eq!(
            answered.is_some(),
            ending == Ending::Open,
            "{}: {rest:?}",
            case.id
        );
    }
    Outcome {
        uplinks: Vec::new(),
        pongs,
        ending,
    }
}

fn said(request: &Received) -> Said {
    if request.json()["encoding"] == "base64" {
        Said::Binary(BASE64.decode(request.data.as_bytes()).expect("base64"))
    } else {
        Said::Text(request.data.clone())
    }
}

fn report(cases: &[Case], outcomes: &[Outcome]) -> String {
    let mut report = String::from(
        "# Conformance report\n\nWritten by `tests/wire.rs` (`FASTSOCK_BLESS=1 cargo test --workspace --test wire`); \
         [docs/conformance.md](../../docs/conformance.md) says how to read it.\n",
    );
    let mut section = "";
    for (case, outcome) in cases.iter().zip(outcomes) {
        if case.section != section {
            section = case.section;
            let _ = write!(
                report,
                "\n## {section}\n\n| case | sent | outcome |\n|---|---|---|\n"
            );
        }
        let _ = writeln!(report, "| {} | {} | {outcome} |", case.id, case.what);
    }
    let _ = writeln!(report, "\n{} cases.", cases.len());
    report
}

/// Compares a committed file with what it should be, or writes it when asked to.
fn compare(file: &str, content: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("FASTSOCK_BLESS").is_some() {
        return fs::write(path, content).expect("written");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let differing = content.lines().zip(committed.lines()).find(|(a, b)| a != b);
    assert!(
        committed == content,
        "{file} differs (FASTSOCK_BLESS=1 writes it anew); first: {differing:?}"
    );
}

/// Comes back as the last pong when the session is still open.
const LAST_PING: &[u8] = b"end of case";

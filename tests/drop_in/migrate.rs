//! docs/migrate.md, walked from its first step to its last.

use std::{fs, path::Path};

use rustix::process::Signal;
use support::{Backend, Device, Gateway, GatewayBuilder, TempRedis, free_port};

#[tokio::test]
async fn the_page_that_says_how_to_move_holds() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let port = free_port();
    let dotenv = dotenv_of_the_page()
        .replace("REDIS_PORT=6379", &format!("REDIS_PORT={}", redis.port()))
        .replace("WEBSOCKET_PORT=3000", &format!("WEBSOCKET_PORT={port}"))
        .replace("http://127.0.0.1:8080/messages", &backend.url());
    let installed = || installation(&dotenv);

    // Look before you move.
    let check = installed().arg("--check").arg("--port").arg("0");
    let mut check = check.launch();
    assert_eq!(check.exit_code().await, Some(0), "{}", check.output());
    let lines = check.stdout();
    for subject in ["redis: ", "remote: "] {
        let is_there = lines.iter().any(|line| line.starts_with(subject));
        assert!(is_there, "{subject}: {lines:?}");
    }
    assert!(backend.requests().is_empty());
    assert_eq!(redis.cmd::<Vec<String>>(&["KEYS", "*"]).await, [""; 0]);

    // Swap the programs, twice: the second time after going back.
    for _ in 0..2 {
        let mut gateway = installed().start().await;
        assert_eq!(gateway.addr().port(), port);
        let ready = format!("WebSocket server running on ws://0.0.0.0:{port}");
        for message in [
            ready.as_str(),
            "Connected to Redis as publisher",
            "Connected to Redis as subscriber",
        ] {
            gateway.wait_line(message).await;
        }
        let logged = gateway.log_file();
        assert!(logged.iter().any(|line| line["message"] == ready.as_str()));

        // See that it works.
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        let seen_ms = redis.wait_field("fastsock:clients", "dev1").await;
        assert!(seen_ms.parse::<u64>().is_ok(), "{seen_ms}");
        redis.publish("fastsock:client:dev1", "hello").await;
        assert_eq!(device.recv_text().await, "hello");
        let before = backend.requests().len();
        device.send("hi").await;
        let request = &backend.wait_for(before + 1).await[before];
        assert_eq!(request.body, r#"{"client_id":"dev1","data":"hi"}"#);
        assert_eq!(request.header("authorization"), Some("Bearer secret"));

        // Stop it.
        gateway.process().signal(Signal::TERM);
        assert_eq!(device.closed().await.code, Some(1001));
        assert_eq!(gateway.exit_code().await, Some(0));
        assert_eq!(redis.hget("fastsock:clients", "dev1").await, None);
    }
}

fn dotenv_of_the_page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/migrate.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<!-- original: ").unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    let (dotenv, _) = rest.split_once("```").unwrap();
    assert_eq!(dotenv.lines().count(), 9, "the original's nine variables");
    dotenv.into()
}

/// A directory with the `.env` of the original, and nothing else that is set.
fn installation(dotenv: &str) -> GatewayBuilder {
    Gateway::builder()
        .without("WEBSOCKET_PORT")
        .file(".env", dotenv)
}

//! The nine variables, from the environment and from `.env`, and how the program ends.

use rustix::process::Signal;
use support::{Backend, Device, Gateway, TempRedis, free_port};

use crate::common::alone;

#[tokio::test]
async fn an_installation_that_is_all_in_dotenv_works_unchanged() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let port = free_port();
    let dotenv = format!(
        "# the original's\nWEBSOCKET_PORT={port}\nWEBSOCKET_PING_INTERVAL = 60000 # a minute\nREDIS_HOST='127.0.0.1'\n\
         REDIS_PORT=\"{}\"\nexport REDIS_DB=2\nREDIS_PREFIX=prod\nREMOTE_URL={}\n\
         REMOTE_HEADERS={{\"X-Api-Key\":\"k\"}}\nLOG_LEVEL=info\nthis line is none\n",
        redis.port(),
        backend.url()
    );
    let gateway = Gateway::builder()
        .without("WEBSOCKET_PORT")
        .file(".env", dotenv)
        .start()
        .await;
    assert_eq!(gateway.addr().port(), port);
    gateway.wait_line("Connected to Redis as subscriber").await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    redis.publish("prod:client:dev1", "hello").await;
    assert_eq!(device.recv_text().await, "hello");
    device.send("hi").await;
    let request = &backend.wait_for(1).await[0];
    assert_eq!(request.header("x-api-key"), Some("k"));
    assert_eq!(request.body, r#"{"client_id":"dev1","data":"hi"}"#);
    assert!(gateway.lines().iter().all(|line| line["level"] != "debug"));
}

#[tokio::test]
async fn the_environment_wins_over_dotenv_and_empty_means_default() {
    let backend = Backend::start().await;
    let gateway = alone()
        .file(
            ".env",
            "REMOTE_URL=http://127.0.0.1:1/\nREMOTE_HEADERS={\"X-A\":\"dotenv\"}\nREDIS_PREFIX=x\nLOG_LEVEL=error\n",
        )
        .var("REMOTE_URL", backend.url())
        .var("REMOTE_HEADERS", "")
        .var("LOG_LEVEL", "")
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hi").await;
    assert_eq!(backend.wait_for(1).await[0].header("x-a"), None);
}

#[tokio::test]
async fn integers_are_read_as_parse_int_does() {
    let redis = TempRedis::new().await;
    let gateway = Gateway::builder()
        .var("REDIS_PORT", format!(" {}.9abc", redis.port()))
        .var("WEBSOCKET_PING_INTERVAL", "400ms")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    support::eventually("it is pinged", async || device.pings() > 2).await;
}

#[tokio::test]
async fn it_ends_with_0_when_asked_to_and_tells_its_devices() {
    for signal in [Signal::TERM, Signal::INT] {
        let redis = TempRedis::new().await;
        let builder = Gateway::builder();
        let mut gateway = crate::common::with_redis(&redis, builder).await;
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        redis.wait_field("fastsock:clients", "dev1").await;
        gateway.process().signal(signal);
        let closed = device.closed().await;
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (Some(1001), "shutdown")
        );
        assert_eq!(gateway.exit_code().await, Some(0));
        assert_eq!(redis.hget("fastsock:clients", "dev1").await, None);
        gateway.wait_line("Shutdown complete.").await;
    }
}

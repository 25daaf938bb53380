//! A WebSocket library that shares no code with ours: the PyPI package `websockets`.

use std::{path::Path, process::Stdio};

use support::{Backend, Gateway, TempRedis, within};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::common::with_redis;

#[tokio::test]
async fn a_python_device_says_and_hears_everything() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let builder = Gateway::builder().var("REMOTE_URL", backend.url());
    let gateway = with_redis(&redis, builder).await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/tools/venv/bin/python");
    assert!(
        python.is_file(),
        "no {}; `make setup` makes it",
        python.display()
    );
    let mut device = Command::new(python)
        .arg(here.join("drop_in/interop.py"))
        .arg(gateway.addr().port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(device.stdout.take().unwrap()).lines();
    let ready = within("the device is ready", lines.next_line())
        .await
        .unwrap();
    if ready.as_deref() == Some("ready") {
        for payload in ["down ü".to_owned(), String::new(), "x".repeat(1 << 20)] {
            redis.publish("fastsock:client:py 1", payload).await;
        }
    }
    let output = within("the device has ended", device.wait_with_output())
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", gateway.output());
    let data = backend.wait_delivered("py 1", 4).await;
    assert_eq!(data[..3], ["text ü", "\0\u{fffd}", "in three fragments"]);
    assert!(data[3] == "x".repeat(200_000));
}

//! The description of the admin API against the running gateway, judged by schemathesis: what it allows is taken, what it forbids is
//! refused, and every answer is as described.

use std::process::Command;

use support::{Backend, Device, Gateway, Reply, eventually, get};

use crate::programs::{content, python, root};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_that_the_description_does_not_say() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400));
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_SPOOL_FSYNC", "interval")
        .var("FASTSOCK_DATA_DIR", "data")
        .var("FASTSOCK_CALL_TIMEOUT", "100ms")
        .var("REMOTE_URL", backend.url());
    let mut gateway = gateway.start().await;
    let admin = gateway.admin_addr();
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    for n in 0..3 {
        device.send(format!("letter {n}")).await;
    }
    eventually("the letters", async || {
        let page = get(admin, "/api/v1/dead-letters").await.json();
        page["dead_letters"]
            .as_array()
            .is_some_and(|all| all.len() == 3)
    })
    .await;
    // A trace has no end, and draining ends the gateway: of that, only what is forbidden, and last.
    let origin = format!("http://{admin}");
    // A call that is right waits for the device as long as it says, up to ten minutes.
    let except = ["--exclude-path-regex=^/api/v1/(trace|drain)$|/call$"].as_slice();
    let call = ["--include-path-regex=/call$", "--mode=negative"].as_slice();
    let drain = ["--include-path=/api/v1/drain", "--mode=negative"].as_slice();
    for arguments in [except, call, drain] {
        let origin = origin.clone();
        let folder = gateway.dir().to_owned();
        let judged = tokio::task::spawn_blocking(move || {
            let st = root().join("target/tools/venv/bin/st");
            let mut command = Command::new("timeout");
            command
                .arg("300")
                .arg(python())
                .arg(st)
                .arg("--config-file");
            command.arg(root().join("tests/operations/schemathesis.toml"));
            command.args(["run", "--seed=1", "--max-examples=10", "--no-shrink"]);
            command.args(["--suppress-health-check=all", "--request-timeout=10"]);
            command
                .args(arguments)
                .arg(format!("{origin}/api/v1/openapi.json"));
            content(command.current_dir(folder).env("NO_COLOR", "1"), "")
        });
        let said = judged.await.expect("it judges");
        assert!(
            said.contains("No issues found") || said.contains("passed"),
            "{said}"
        );
    }
    assert_eq!(gateway.stop().await, Some(0));
}

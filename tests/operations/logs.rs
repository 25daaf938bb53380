//! What the log says at the level that docs/operate.md recommends for production.

use support::{Backend, Device, Gateway, Reply};

#[tokio::test]
async fn who_hears_of_an_outage_hears_of_its_end() {
    let (backend, events) = (Backend::start().await, Backend::start().await);
    backend.answer_all(Reply::new(503));
    events.answer_all(Reply::new(503));
    let gateway = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var("REMOTE_URL", backend.url())
        .var("FASTSOCK_EVENTS_URL", events.url())
        .start()
        .await;
    // As many failures in a row as open a breaker.
    let mut devices = Vec::new();
    for number in 0..25 {
        let mut device = Device::connect(gateway.addr(), &format!("dev{number}")).await;
        device.send("one").await;
        devices.push(device);
    }
    let outages = [
        (
            &backend,
            "the remote takes no messages; the gateway holds them until it does",
            "the remote takes messages again",
        ),
        (
            &events,
            "FASTSOCK_EVENTS_URL takes no events; the gateway holds them until it does",
            "FASTSOCK_EVENTS_URL takes events again",
        ),
    ];
    for (of, begins, ends) in outages {
        assert_eq!(gateway.wait_line(begins).await["level"], "warn");
        of.answer_all(Reply::ok());
        assert_eq!(gateway.wait_line(ends).await["level"], "warn");
    }
}

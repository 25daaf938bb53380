//! The host's hook comes first, and what is configured where it has no opinion.

use std::time::{Duration, SystemTime};

use fastsock::{
    Accepted, Admission, Bridge, ClientId, ConnectRequest, Decision, Hooks, Refusal, Ticket,
};
use support::Device;

use crate::common::{Place, config, from_now, hs256, secret, visit, wait_only};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_hook_without_an_opinion_leaves_it_to_what_is_configured() {
    let config = config(&[("auth", "jwt"), ("auth_jwt_key", &secret(SECRET))]);
    let bridge = Bridge::builder(config)
        .hooks(Doorman)
        .start()
        .await
        .unwrap();
    let token = hs256(
        SECRET,
        &format!(r#"{{"sub":"dev1","exp":{}}}"#, from_now(60.0)),
    );
    assert_eq!(visit(&bridge, Place::Bearer, &token).await, "dev1");
    assert_eq!(visit(&bridge, Place::Bearer, "friend").await, "a friend");
    let addr = bridge.local_addr();
    assert_eq!(
        Place::Bearer.show(addr, "foe").await.unwrap_err().status,
        403
    );
    assert_eq!(
        Place::Bearer
            .show(addr, "stranger")
            .await
            .unwrap_err()
            .status,
        401
    );
}

/// As a webhook's answer with such an `expires_at`: else it would take over the session that the device has, and end at once.
#[tokio::test]
async fn whom_a_hook_accepts_until_a_time_that_is_past_is_refused() {
    let bridge = Bridge::builder(config(&[])).hooks(Doorman).start();
    let bridge = bridge.await.unwrap();
    let addr = bridge.local_addr();
    let _seated = Device::connect(addr, "friend").await;
    wait_only(&bridge, "friend").await;
    let before = bridge.clients();
    let late = Place::Bearer.show(addr, "late").await;
    assert_eq!(late.unwrap_err().status, 401);
    assert_eq!(bridge.clients(), before);
}

struct Doorman;

impl Hooks for Doorman {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        Decision::Now(match request.credentials.bearer.as_deref() {
            Some("friend") => Admission::Accept(ClientId::new("a friend").unwrap()),
            Some("late") => {
                let past = SystemTime::now() - Duration::from_secs(1);
                let accepted = Accepted::new(ClientId::new("friend").unwrap());
                accepted.expires_at(Some(past)).into()
            }
            Some("foe") => Admission::Reject(Refusal::new(403, "you know why")),
            _ => Admission::AsConfigured,
        })
    }
}

//! The host's hook comes first, and what is configured where it has no opinion.

use fastsock::{Admission, Bridge, ClientId, ConnectRequest, Decision, Hooks, Refusal, Ticket};

use crate::common::{Place, config, from_now, hs256, secret, visit};

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

struct Doorman;

impl Hooks for Doorman {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        Decision::Now(match request.credentials.bearer.as_deref() {
            Some("friend") => Admission::Accept(ClientId::new("a friend").unwrap()),
            Some("foe") => Admission::Reject(Refusal::new(403, "you know why")),
            _ => Admission::AsConfigured,
        })
    }
}

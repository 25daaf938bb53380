//! What is expected whatever the backend does with its connections.

use std::collections::HashSet;

use fastsock::Bridge;
use support::{Gateway, eventually};

use crate::server::{PATIENCE_MS, Server};

/// No attempt failed, and so nothing had to wait for its next.
pub(crate) fn assert_on_time(bridge: &Bridge) {
    let stats = bridge.stats();
    assert_eq!(stats.counters.posts_failed, 0, "of uplinks");
    assert_eq!(stats.lifecycle.posts_failed, 0, "of events");
}

/// So many requests came to a path, and none of them twice.
pub(crate) async fn assert_each_once(server: &Server, path: &str, count: usize) {
    let keys = requests(server, path, count).await;
    let distinct: HashSet<_> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (count, count), "{path}");
}

/// Each of so many devices was asked about once.
pub(crate) async fn assert_asked(server: &Server, devices: usize) {
    assert_eq!(requests(server, "/auth", devices).await.len(), devices);
}

/// The keys of all requests to a path, once there are so many: what the backend has said may not have been read yet.
async fn requests(server: &Server, path: &str, count: usize) -> Vec<String> {
    let what = format!("{count} requests to {path}");
    eventually(&what, async || {
        let keys = server.keys(path);
        (keys.len() >= count).then_some(keys)
    })
    .await
}

/// A JWK set is fetched again and again, less often than the backend keeps a connection, and never in vain.
pub(crate) async fn keys_stay(server: &Server) {
    let refresh = server.keeps_idle().as_millis() * 3 / 2;
    let ca = server.ca();
    let gateway = Gateway::builder()
        .var("FASTSOCK_AUTH", "jwt")
        .var("FASTSOCK_AUTH_JWT_JWKS", server.url("/jwks"))
        .var("FASTSOCK_AUTH_JWT_REFRESH", refresh.to_string())
        .var("FASTSOCK_AUTH_TIMEOUT", PATIENCE_MS)
        .var("FASTSOCK_REMOTE_CA", ca.to_str().expect("UTF-8"))
        .start()
        .await;
    eventually("it was fetched three times", async || {
        server.keys("/jwks").len() >= 3
    })
    .await;
    let mut errors = gateway.lines();
    errors.retain(|line| line["level"] == "error");
    assert!(errors.is_empty(), "{errors:?}");
}

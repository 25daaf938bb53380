//! What several of these tests begin with.

use std::{fs, path::Path};

use data_encoding::BASE64;
use serde_json::Value;
use support::{Backend, Gateway, GatewayBuilder, TempRedis};

/// A gateway with a Redis of its own, both links up.
pub(crate) async fn with_redis(redis: &TempRedis, builder: GatewayBuilder) -> Gateway {
    let gateway = builder
        .var("REDIS_PORT", redis.port().to_string())
        .start()
        .await;
    gateway.wait_line("Connected to Redis as publisher").await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    gateway
}

/// A gateway without Redis that forwards to a backend.
pub(crate) fn forwarding(backend: &Backend) -> GatewayBuilder {
    alone().var("REMOTE_URL", backend.url())
}

/// A gateway without Redis and without a backend.
pub(crate) fn alone() -> GatewayBuilder {
    Gateway::builder().var("FASTSOCK_BROKER", "embedded")
}

/// The cases of a file in `tests/vectors`.
pub(crate) fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// Bytes and the text that Node's `Buffer.toString()` makes of them.
pub(crate) fn utf8_vectors() -> Vec<(Vec<u8>, String)> {
    let case = |case: Value| {
        let bytes = BASE64
            .decode(case["bytes"].as_str().unwrap().as_bytes())
            .unwrap();
        (bytes, case["text"].as_str().unwrap().to_owned())
    };
    vectors("utf8.json").into_iter().map(case).collect()
}

//! Who may connect: tokens of a file, JWTs, a webhook, client certificates; and that no token is told to anyone.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks and threads"
)]

#[path = "auth/basic.rs"]
mod basic;
#[path = "auth/certificate.rs"]
mod certificate;
#[path = "auth/common.rs"]
mod common;
#[path = "auth/context.rs"]
mod context;
#[path = "auth/files.rs"]
mod files;
#[path = "auth/hook.rs"]
mod hook;
#[path = "auth/jwt.rs"]
mod jwt;
#[path = "auth/ocpp.rs"]
mod ocpp;
#[path = "auth/paths.rs"]
mod paths;
#[path = "auth/places.rs"]
mod places;
#[path = "auth/privacy.rs"]
mod privacy;
#[path = "auth/subprotocols.rs"]
mod subprotocols;
#[path = "auth/tokens.rs"]
mod tokens;
#[path = "auth/webhook.rs"]
mod webhook;

//! The settings, a file a section.

mod ack;
mod admin;
mod auth;
mod devices;
mod downlinks;
mod events;
mod groups;
mod limits;
mod listen;
mod mailbox;
mod otlp;
mod proxies;
mod redis;
mod remote;
mod routing;
mod spool;
mod tls;
mod uplinks;

pub use self::{
    ack::Ack, admin::Admin, auth::Auth, devices::Devices, downlinks::Downlinks, events::Events,
    groups::Groups, limits::Limits, listen::Listen, mailbox::Mailbox, otlp::Otlp, proxies::Proxies,
    redis::Redis, remote::Remote, routing::Routing, spool::Spool, tls::Tls, uplinks::Uplinks,
};
use super::Setting;

/// Those that devices of a route may have otherwise: of the backend, and of who may connect.
pub(super) fn rows_of_routes() -> impl Iterator<Item = &'static Setting> {
    remote::ROWS.iter().chain(auth::ROWS)
}

/// The rows of all sections, in the order of the documentation.
pub(super) fn rows() -> Vec<Setting> {
    [
        listen::ROWS,
        devices::ROWS,
        tls::ROWS,
        proxies::ROWS,
        redis::ROWS,
        remote::ROWS,
        routing::ROWS,
        uplinks::ROWS,
        ack::ROWS,
        events::ROWS,
        spool::ROWS,
        downlinks::ROWS,
        mailbox::ROWS,
        groups::ROWS,
        limits::ROWS,
        auth::ROWS,
        admin::ROWS,
        otlp::ROWS,
    ]
    .concat()
}

//! The gateway in the place of the original: every row of what a working installation relies on, through the binary.

#[path = "drop_in/common.rs"]
mod common;
#[path = "drop_in/downlink.rs"]
mod downlink;
#[path = "drop_in/environment.rs"]
mod environment;
#[path = "drop_in/handshake.rs"]
mod handshake;
#[path = "drop_in/heartbeat.rs"]
mod heartbeat;
#[path = "drop_in/interop.rs"]
mod interop;
#[path = "drop_in/listen.rs"]
mod listen;
#[path = "drop_in/logs.rs"]
mod logs;
#[path = "drop_in/migrate.rs"]
mod migrate;
#[path = "drop_in/no_race.rs"]
mod no_race;
#[path = "drop_in/presence.rs"]
mod presence;
#[path = "drop_in/remote.rs"]
mod remote;
#[path = "drop_in/token.rs"]
mod token;
#[path = "drop_in/uplink.rs"]
mod uplink;

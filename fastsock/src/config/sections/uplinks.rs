//! Uplinks in memory.

use super::super::{UplinkBinary, UplinkFull, section::section};

section! {
    /// Uplinks in memory.
    Uplinks = uplinks, "Uplinks in memory";
    /// What happens when the lane of a device is full. `pause`: the gateway stops reading that socket. `drop_oldest`: the oldest message is lost.
    uplink_full => full: UplinkFull = UplinkFull::Pause, "FASTSOCK_UPLINK_FULL", "pause or drop_oldest", "drop_oldest";
    /// Bytes that the lane of one device holds in memory. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it. With a disk spool the rest of the lane is on the disk.
    uplink_lane_bytes => lane_bytes: usize as bytes = 64 << 10, "FASTSOCK_UPLINK_LANE_BYTES", "bytes from 1 to 1073741824", "128KiB", |n| (1..=1 << 30).contains(n);
    /// Bytes that all lanes together hold in memory. Without a durable spool, a lane that has something to send counts as its client id and 896 bytes more.
    uplink_total_bytes => total_bytes: usize as bytes = 64 << 20, "FASTSOCK_UPLINK_TOTAL_BYTES", "bytes from 1 to 68719476736", "256MiB", |n| (1..=64u64 << 30).contains(&(*n as u64));
    /// How a binary frame becomes the text `data`. `lossy`: as UTF-8, in which bad bytes become U+FFFD. `base64`: as Base64, with `"encoding":"base64"` beside it.
    uplink_binary => binary: UplinkBinary = UplinkBinary::Lossy, "FASTSOCK_UPLINK_BINARY", "lossy or base64", "base64";
}

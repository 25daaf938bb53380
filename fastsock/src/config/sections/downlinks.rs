//! Downlinks and outboxes.

use super::super::{DownlinkBinary, Full, section::section};

section! {
    /// Downlinks and outboxes.
    Downlinks = downlinks, "Downlinks";
    /// How the gateway sends a downlink that is not UTF-8. `text`: as TEXT, in which bad bytes become U+FFFD. `auto`: as BINARY.
    downlink_binary => binary: DownlinkBinary = DownlinkBinary::Text, "FASTSOCK_DOWNLINK_BINARY", "text or auto", "auto";
    /// What happens when an outbox is full and its device does not read. `close`: the gateway closes the device with 4413. `drop_oldest` and `drop_newest`: that message is lost.
    downlink_full => full: Full = Full::Close, "FASTSOCK_DOWNLINK_FULL", "close, drop_oldest or drop_newest", "drop_oldest";
    /// Bytes that the outbox of one device holds. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it.
    outbox_bytes => outbox_bytes: usize as bytes = 1 << 20, "FASTSOCK_OUTBOX_BYTES", "bytes from 1 to 1073741824", "256KiB", |n| (1..=1 << 30).contains(n);
    /// Messages that the outbox of one device holds.
    outbox_messages => outbox_messages: usize = 16_384, "FASTSOCK_OUTBOX_MESSAGES", "an integer from 1 to 1048576", "1000", |n| (1..=1 << 20).contains(n);
    /// Bytes that all devices together may have waiting beyond their own two limits. Only a device that reads goes beyond them: its socket has taken something within the last second. When these bytes are used up, `FASTSOCK_DOWNLINK_FULL` applies to the devices beyond their own limits, the largest first. 0: no device goes beyond.
    outbox_total_bytes => outbox_total_bytes: usize as bytes = 64 << 20, "FASTSOCK_OUTBOX_TOTAL_BYTES", "bytes from 0 to 68719476736", "256MiB", |n| *n as u64 <= 64 << 30;
}

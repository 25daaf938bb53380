//! Mailboxes.

use std::time::Duration;

use super::super::{MailboxKind, is_within, section::section};

section! {
    /// Mailboxes: downlinks that wait for devices that are away.
    Mailbox = mailbox, "Mailboxes";
    /// Where downlinks are kept for devices that are away (docs/mailbox.md). `off`: nowhere. `redis`: in Redis; all gateways and every publisher share it. `disk`: in a file in `FASTSOCK_DATA_DIR`, for one gateway alone; `FASTSOCK_SPOOL_FSYNC` holds for it too.
    mailbox => kind: MailboxKind = MailboxKind::Off, "FASTSOCK_MAILBOX", "off, redis or disk", "redis";
    /// Messages that the mailbox of one device holds. Beyond that, the oldest is lost as `mailbox_full`.
    mailbox_messages => messages: usize = 1000, "FASTSOCK_MAILBOX_MESSAGES", "an integer from 1 to 1000000", "100", |n| (1..=1_000_000).contains(n);
    /// Bytes that the mailbox of one device takes: in Redis what Redis says, on disk the length of each message and 128 bytes. Beyond that, the oldest messages are lost as `mailbox_full`. The newest message stays, whatever its size.
    mailbox_bytes => bytes: usize as bytes = 1 << 20, "FASTSOCK_MAILBOX_BYTES", "bytes from 16384 to 1073741824", "256KiB", |n| (16_384..=1 << 30).contains(n);
    /// Milliseconds for which a mailbox keeps a message. An older one is lost as `mailbox_expired`.
    mailbox_age => age: Duration = Duration::from_secs(7 * 24 * 3600), "FASTSOCK_MAILBOX_AGE", "milliseconds from 1000 to 31536000000", "1d", |d| is_within(d, 1000, 31_536_000_000);
    /// Messages that all mailboxes hold together. Beyond that, the oldest are lost as `mailbox_full`, within a minute. 0: any.
    mailbox_total_messages => total_messages: usize = 0, "FASTSOCK_MAILBOX_TOTAL_MESSAGES", "an integer from 0 to 1000000000", "1000000", |n| *n <= 1_000_000_000;
    /// Bytes that all mailboxes take together, counted in the same way. Beyond that, the oldest messages are lost as `mailbox_full`, within a minute. 0: any.
    mailbox_total_bytes => total_bytes: usize as bytes = 0, "FASTSOCK_MAILBOX_TOTAL_BYTES", "bytes from 0 to 1099511627776", "1GiB", |n| *n as u64 <= 1 << 40;
    /// Milliseconds for which a mailbox knows the `id` that a publisher gave a message, so that it keeps a repeated one once.
    mailbox_id_window => id_window: Duration = Duration::from_secs(3600), "FASTSOCK_MAILBOX_ID_WINDOW", "milliseconds from 1000 to 2592000000", "1d", |d| is_within(d, 1000, 2_592_000_000);
}

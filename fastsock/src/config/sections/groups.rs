//! Groups and broadcasts.

use super::super::section::section;

section! {
    /// Groups and broadcasts.
    Groups = groups, "Groups";
    /// Whether one message can be for many devices: `PUBLISH <P>:group:<name>` and `<P>:broadcast` (docs/groups.md).
    groups => on: bool = true, "FASTSOCK_GROUPS", "on or off", "off";
    /// Groups that a device may be in before it can join no more. Those of its admission (at most 64) count, and are never refused.
    groups_per_device => per_device: usize = 64, "FASTSOCK_GROUPS_PER_DEVICE", "an integer from 1 to 1024", "16", |n| (1..=1024).contains(n);
    /// Groups that a device may join by itself, with `fastsock.v2.ack`. One that ends in `*` stands for all that begin so. Empty: none.
    device_groups => for_devices: Vec<String> = Vec::new(), "FASTSOCK_DEVICE_GROUPS", "names of groups, separated by commas", "news,room-*";
}

//! How large the fleet is, and for how long it is disturbed.

use std::{env, time::Duration};

pub(crate) struct Plan {
    pub(crate) devices: usize,
    pub(crate) lasts: Duration,
    pub(crate) seed: u64,
    /// Between two uplinks of one device, on average.
    pub(crate) uplink_every: Duration,
    /// Between two kept downlinks of one publisher, on average.
    pub(crate) publish_every: Duration,
    /// The longest that anything may take once all is well again.
    pub(crate) patience: Duration,
}

impl Plan {
    pub(crate) fn from_env() -> Self {
        let number = |name: &str, default: u64| {
            env::var(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let devices = number("FASTSOCK_FLEET_DEVICES", 36) as usize;
        let most_uplinks_a_second = 300;
        let rare = Duration::from_secs(1) * devices as u32 / most_uplinks_a_second;
        Self {
            devices,
            lasts: Duration::from_secs(number("FASTSOCK_FLEET_SECONDS", 8)),
            seed: number("FASTSOCK_FLEET_SEED", fastrand::u64(..1_000_000_000)),
            uplink_every: Duration::from_millis(250).max(rare),
            publish_every: Duration::from_millis(50),
            patience: Duration::from_secs(90 + devices as u64 / 20),
        }
    }

    /// The name of a device.
    pub(crate) fn name(n: usize) -> String {
        format!("d{n:05}")
    }

    /// Whether it sleeps most of the time.
    pub(crate) fn sleeps(n: usize) -> bool {
        n.is_multiple_of(3)
    }
}

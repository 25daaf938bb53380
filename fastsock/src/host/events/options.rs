//! What goes into the event queue, and how much of it.

use std::time::Duration;

/// What happens to the messages of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplinks {
    /// The bridge forwards them; the queue does not get them.
    #[default]
    Off,
    /// Each waits for `resolve`.
    Decide,
    /// The host takes them: the bridge POSTs nothing, and counts them as `dropped_by_hook`.
    Take,
}

/// What goes into an [`EventQueue`](crate::events::EventQueue) and how much of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventOptions {
    /// Most taken uplinks that the queue holds, and most notices; at least 1. Default 8,192.
    pub capacity: usize,
    /// Most bytes of taken uplinks that the queue holds; each counts as its payload and 128 bytes. Default 16 MiB.
    pub capacity_bytes: usize,
    /// Whether the host decides who may connect. Default off: the settings decide.
    pub authenticate: bool,
    /// What happens to uplinks. Default off.
    pub uplinks: Uplinks,
    /// Whether the queue gets connects, disconnects, lost uplinks and states. Default on.
    pub notices: bool,
    /// How long a decision can be answered: the `hook_timeout` of the bridge's configuration. Default 5 s.
    pub decision_time: Duration,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            capacity: 8192,
            capacity_bytes: 16 << 20,
            authenticate: false,
            uplinks: Uplinks::Off,
            notices: true,
            decision_time: Duration::from_secs(5),
        }
    }
}

impl EventOptions {
    /// Sets [`capacity`](Self::capacity).
    #[must_use]
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Sets [`capacity_bytes`](Self::capacity_bytes).
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: usize) -> Self {
        self.capacity_bytes = bytes;
        self
    }

    /// Sets [`authenticate`](Self::authenticate).
    #[must_use]
    pub fn authenticate(mut self, on: bool) -> Self {
        self.authenticate = on;
        self
    }

    /// Sets [`uplinks`](Self::uplinks).
    #[must_use]
    pub fn uplinks(mut self, uplinks: Uplinks) -> Self {
        self.uplinks = uplinks;
        self
    }

    /// Sets [`notices`](Self::notices).
    #[must_use]
    pub fn notices(mut self, on: bool) -> Self {
        self.notices = on;
        self
    }

    /// Sets [`decision_time`](Self::decision_time).
    #[must_use]
    pub fn decision_time(mut self, time: Duration) -> Self {
        self.decision_time = time;
        self
    }
}

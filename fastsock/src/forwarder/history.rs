//! Whose messages a destination has taken so far: the history that an answer is judged by; no I/O, no clock.
//!
//! An answer such as 404 is either about one device or about the whole set-up. Which of the two depends on who else gets
//! what, so the destination remembers the devices it has answered 2xx. It does so here and not with the seat of a device or in
//! its lane: a lane is gone as soon as it is empty, a seat as soon as its device reconnects, and to find a seat would take a
//! second lock for each uplink. A hash of the client id is all that is kept, of a bounded number of devices.

use ahash::{HashSet, RandomState};
use smallvec::SmallVec;

/// Whose messages a destination has taken so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    hasher: RandomState,
    known: Known,
    /// How often it has answered 2xx.
    deliveries: u64,
    /// Who got the newest 2xx.
    newest: Option<Device>,
    /// The number of the newest delivery to anyone but `newest`.
    newest_of_another: u64,
    /// Known devices that it has refused since its last 2xx.
    refused: SmallVec<[Device; EVERYONE]>,
}

/// A device as a destination remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device(u64);

impl History {
    /// The device with this client id.
    pub(crate) fn device(&self, client_id: &str) -> Device {
        Device(self.hasher.hash_one(client_id))
    }

    /// Whether it has taken a message of this device, as far as it remembers.
    pub(crate) fn knows(&self, device: Device) -> bool {
        self.known.contains(device)
    }

    /// Notes a 2xx.
    pub(super) fn deliver(&mut self, device: Device) {
        if self.newest != Some(device) {
            self.newest_of_another = self.deliveries;
            self.newest = Some(device);
            self.known.insert(device);
        }
        self.deliveries += 1;
        self.refused.clear();
    }

    /// Notes an answer that is about this device or about everyone. `true` when [so many](EVERYONE) known devices got it with
    /// no 2xx in between that it is about everyone; one to a stranger never is.
    pub(super) fn refuse(&mut self, device: Device) -> bool {
        if !self.knows(device) {
            return false;
        }
        if self.refused.len() < EVERYONE && !self.refused.contains(&device) {
            self.refused.push(device);
        }
        self.refused.len() == EVERYONE
    }

    /// Whether it has refused all it knows since its last 2xx, or [so many](EVERYONE) of them.
    pub(super) fn refuses_everyone(&self) -> bool {
        self.refused.len() >= self.known.len().min(EVERYONE)
    }

    /// The number of the newest delivery to anyone but this device.
    pub(super) fn newest_of_others(&self, device: Device) -> u64 {
        match self.newest == Some(device) {
            true => self.newest_of_another,
            false => self.deliveries,
        }
    }

    /// The number of the newest delivery to anyone.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }
}

/// Devices in two generations: bounded, and those that were silent for longest are forgotten first.
#[derive(Debug, Default)]
struct Known {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Known {
    fn contains(&self, device: Device) -> bool {
        self.young.contains(&device.0) || self.old.contains(&device.0)
    }

    fn insert(&mut self, device: Device) {
        if self.young.insert(device.0) && self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// How many; who is in both generations counts twice.
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// So many known devices stand for everyone.
const EVERYONE: usize = 3;
/// So many devices are remembered at least, and at most twice as many, at up to 18 bytes each.
const GENERATION: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(history: &History, count: usize) -> Vec<Device> {
        (0..count)
            .map(|n| history.device(&format!("dev{n}")))
            .collect()
    }

    #[test]
    fn three_known_devices_with_no_delivery_in_between_are_everyone() {
        let mut history = History::default();
        let of = devices(&history, 5);
        for device in &of[..4] {
            history.deliver(*device);
        }
        for _ in 0..9 {
            assert!(!history.refuse(of[4]), "a stranger");
        }
        for (device, is_everyone) in [(0, false), (0, false), (1, false), (2, true), (0, true)] {
            assert_eq!(history.refuse(of[device]), is_everyone, "{device}");
            assert_eq!(history.refuses_everyone(), is_everyone, "{device}");
        }
        assert!(!history.refuse(of[4]), "a stranger");
        assert!(history.refuse(of[3]));
        history.deliver(of[0]);
        assert!(!history.refuse(of[1]));
    }

    #[test]
    fn where_fewer_are_known_they_are_everyone_and_so_is_nobody() {
        let mut history = History::default();
        let of = devices(&history, 3);
        assert!(history.refuses_everyone());
        history.deliver(of[0]);
        history.deliver(of[1]);
        history.refuse(of[2]);
        history.refuse(of[0]);
        assert!(!history.refuses_everyone());
        assert!(!history.refuse(of[1]), "but the breaker is left alone");
        assert!(history.refuses_everyone());
    }

    #[test]
    fn deliveries_of_others_are_told_from_those_of_a_device() {
        let mut history = History::default();
        let of = devices(&history, 3);
        let mut seen = Vec::new();
        for device in [0, 0, 1, 1, 1, 0, 2] {
            history.deliver(of[device]);
            seen.push([0, 1, 2].map(|n| history.newest_of_others(of[n])));
        }
        let expected = [
            [0, 1, 1],
            [0, 2, 2],
            [3, 2, 3],
            [4, 2, 4],
            [5, 2, 5],
            [5, 6, 6],
            [7, 7, 6],
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn it_remembers_a_bounded_number_and_those_the_longest_that_speak() {
        let mut history = History::default();
        let faithful = history.device("faithful");
        let of = devices(&history, 5 * GENERATION);
        for (n, device) in of.iter().enumerate() {
            history.deliver(*device);
            if n % 1000 == 0 {
                history.deliver(faithful);
            }
        }
        assert!(history.known.len() < 2 * GENERATION);
        assert!(history.knows(faithful));
        let (forgotten, remembered) = of.split_at(of.len() - GENERATION);
        assert!(remembered.iter().all(|device| history.knows(*device)));
        assert!(!history.knows(forgotten[0]));
    }
}

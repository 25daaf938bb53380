//! How much may be asked of the gateway: token buckets, and counts by address. No I/O, no clock.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{config::Config, locks::Mutex};

/// A token bucket, kept as the one moment at which it is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    /// How long it takes to fill an empty one.
    depth: Duration,
    full_at: Instant,
}

impl Bucket {
    /// A full one that holds what a second brings; `None` when the rate is 0, which means no limit.
    pub(crate) fn new(per_second: u64, now: Instant) -> Option<Self> {
        (per_second > 0).then_some(Self {
            per_second: per_second as f64,
            depth: Duration::from_secs(1),
            full_at: now,
        })
    }

    /// A full one that holds so many tokens, and gets one every so often.
    #[cfg_attr(
        not(feature = "jwt"),
        allow(dead_code, reason = "only keys are looked for so seldom")
    )]
    pub(crate) fn of(tokens: u32, every: Duration, now: Instant) -> Self {
        Self {
            per_second: every.as_secs_f64().recip(),
            depth: every * tokens,
            full_at: now,
        }
    }

    /// How long it takes until there is a token.
    #[cfg_attr(
        not(feature = "jwt"),
        allow(dead_code, reason = "only keys are looked for so seldom")
    )]
    pub(crate) fn wait(mut self, now: Instant) -> Duration {
        self.spend(1, now);
        let there_at = self.in_credit_at(now);
        there_at.map_or(Duration::ZERO, |at| at.duration_since(now))
    }

    /// Takes one token if there is one.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        let before = *self;
        self.spend(1, now);
        let has_it = self.in_credit_at(now).is_none();
        if !has_it {
            *self = before;
        }
        has_it
    }

    /// Takes so many tokens, whether they are there or not; what is missing is owed.
    fn spend(&mut self, tokens: usize, now: Instant) {
        let time = Duration::from_secs_f64(tokens as f64 / self.per_second);
        self.full_at = self.full_at.max(now) + time;
    }

    /// When nothing is owed any more; `None` when nothing is.
    fn in_credit_at(&self, now: Instant) -> Option<Instant> {
        let owed = self.full_at.saturating_duration_since(now + self.depth);
        (!owed.is_zero()).then(|| now + owed)
    }
}

/// What one device says, measured against its rates.
#[derive(Debug)]
pub(crate) struct Meter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Since when it has had more to say than it may, each time it was read again.
    over_since: Option<Instant>,
    resumes_at: Option<Instant>,
    /// Bytes of pings read since then: it is not read, and its pings are answered all the same, up to a bound.
    answered_bytes: usize,
}

/// What a device's rates say about reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It may be read.
    Read,
    /// Not yet.
    Wait,
    /// It has had its chance.
    TooMany,
}

impl Meter {
    /// A meter for one device; `None` when it has no limits.
    pub(crate) fn new(config: &Config, now: Instant) -> Option<Box<Self>> {
        let meter = Self {
            messages: Bucket::new(config.limits.uplinks.into(), now),
            bytes: Bucket::new(config.limits.uplink_bytes, now),
            over_since: None,
            resumes_at: None,
            answered_bytes: 0,
        };
        (meter.messages.is_some() || meter.bytes.is_some()).then(|| Box::new(meter))
    }

    /// Counts a message that was read. `true` when it was one too many: the device is to be read no further for now.
    pub(crate) fn count(&mut self, bytes: usize, now: Instant) -> bool {
        if self.resumes_at.is_some() {
            self.answered_bytes += bytes + FRAME_HEAD_BYTES;
        }
        let buckets = [(&mut self.messages, 1), (&mut self.bytes, bytes)];
        let in_credit_at = buckets.into_iter().filter_map(|(bucket, tokens)| {
            let bucket = bucket.as_mut()?;
            bucket.spend(tokens, now);
            bucket.in_credit_at(now)
        });
        let Some(in_credit_at) = in_credit_at.max() else {
            return false;
        };
        let over_since = *self.over_since.get_or_insert(now);
        self.resumes_at = Some(in_credit_at.min(over_since + OVER_MAX));
        true
    }

    /// Everything it has sent is read: it keeps to its rates again.
    pub(crate) fn caught_up(&mut self) {
        self.over_since = None;
    }

    /// Whether it may be read now.
    pub(crate) fn pace(&mut self, now: Instant) -> Pace {
        match self.resumes_at {
            None => Pace::Read,
            Some(at) if now < at => Pace::Wait,
            Some(_) if self.over_since.is_some_and(|s| now >= s + OVER_MAX) => Pace::TooMany,
            Some(_) => {
                self.resumes_at = None;
                self.answered_bytes = 0;
                Pace::Read
            }
        }
    }

    /// Bytes of pings read since it may not be read.
    pub(crate) fn answered_bytes(&self) -> usize {
        self.answered_bytes
    }

    /// When [`Meter::pace`] is to be asked again; `None` while the device may be read.
    pub(crate) fn resumes_at(&self) -> Option<Instant> {
        self.resumes_at
    }
}

/// Some at once, as many as a limit says that may change meanwhile: whoever is in stays.
#[derive(Debug)]
pub(crate) struct Capacity {
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// Lets one be; given back when dropped.
#[derive(Debug)]
pub(crate) struct CapacityPermit(Arc<Capacity>);

impl Capacity {
    /// At most so many.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let (most, taken) = (most.into(), 0.into());
        Arc::new(Self { most, taken })
    }

    /// From now on at most so many.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// The most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    /// Takes a permit if there are fewer than there may be.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<CapacityPermit> {
        let most = self.most();
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        let acquired = self.taken.fetch_update(Relaxed, Relaxed, one_more);
        acquired.is_ok().then(|| CapacityPermit(self.clone()))
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// Connections by address. Holds only addresses that have one, so it is bounded as connections are.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// 0: any number.
    most: AtomicUsize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// Lets one connection of an address be; given back when dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Addresses {
    /// At most so many connections an address; 0 means no limit.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let (most, counts) = (most.into(), Mutex::default());
        Arc::new(Self { most, counts })
    }

    /// From now on at most so many.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// Whether there is a limit. Who comes while there is none is not counted.
    pub(crate) fn are_limited(&self) -> bool {
        self.most.load(Relaxed) > 0
    }

    /// Takes a permit if the address has fewer than it may have.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Box<AddressPermit>> {
        let network = network(ip);
        match self.counts.lock().entry(network) {
            Entry::Occupied(count) if *count.get() >= self.most.load(Relaxed) => return None,
            entry => *entry.or_default() += 1,
        }
        let addresses = self.clone();
        Some(Box::new(AddressPermit { addresses, network }))
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Entry::Occupied(mut count) = counts.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What one subscriber has: an IPv4 address, or the /64 of an IPv6 address (RFC 6177), within which it can change at will.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

/// The head of a ping of a device.
const FRAME_HEAD_BYTES: usize = 6;
/// How long a device may have more to say than it may before it is closed.
const OVER_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_bucket_of_few_tokens_gives_them_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let mut bucket = Bucket::of(3, seconds(10.0), start);
        let taken = |bucket: &mut Bucket, now| (0..9).filter(|_| bucket.try_take(now)).count();
        assert_eq!(bucket.wait(start), Duration::ZERO);
        assert_eq!(taken(&mut bucket, start), 3);
        let wait = bucket.wait(start + seconds(4.0));
        assert!(wait > seconds(5.9) && wait < seconds(6.1), "{wait:?}");
        assert_eq!(taken(&mut bucket, start + seconds(9.9)), 0);
        assert_eq!(taken(&mut bucket, start + seconds(10.1)), 1);
        assert_eq!(taken(&mut bucket, start + seconds(1000.0)), 3);
    }

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start).unwrap();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.try_take(now)).count();
        assert_eq!(taken(&mut bucket, start), 10);
        assert_eq!(taken(&mut bucket, start + seconds(0.05)), 0);
        assert_eq!(taken(&mut bucket, start + seconds(0.51)), 5);
        assert_eq!(
            taken(&mut bucket, start + seconds(100.0)),
            10,
            "no more is saved up"
        );
        assert!(Bucket::new(0, start).is_none());
    }

    fn meter(uplinks: u32, bytes: u64, now: Instant) -> Box<Meter> {
        let config = Config::default()
            .limit_uplinks(uplinks)
            .limit_uplink_bytes(bytes);
        Meter::new(&config, now).unwrap()
    }

    #[test]
    fn a_device_that_says_too_much_waits_until_it_owes_nothing() {
        let start = Instant::now();
        let mut meter = meter(2, 0, start);
        assert!(!meter.count(0, start));
        assert!(!meter.count(0, start));
        assert!(meter.count(0, start));
        assert_eq!(meter.pace(start + seconds(0.4)), Pace::Wait);
        assert_eq!(meter.resumes_at(), Some(start + seconds(0.5)));
        assert_eq!(meter.pace(start + seconds(0.5)), Pace::Read);
        assert_eq!(meter.resumes_at(), None);
        assert!(Meter::new(&Config::default(), start).is_none());
    }

    #[test]
    fn bytes_are_counted_beside_messages_and_the_longer_wait_wins() {
        let start = Instant::now();
        let mut meter = meter(1000, 1000, start);
        assert!(!meter.count(1000, start));
        assert!(meter.count(2000, start));
        assert_eq!(meter.resumes_at(), Some(start + seconds(2.0)));
    }

    #[test]
    fn who_is_over_for_30_s_on_end_is_cut_and_who_catches_up_begins_anew() {
        let start = Instant::now();
        let mut cut = meter(1, 0, start);
        let mut now = start;
        let cut_at = loop {
            if cut.count(0, now) {
                now = cut.resumes_at().unwrap();
                if cut.pace(now) == Pace::TooMany {
                    break now;
                }
            }
        };
        assert_eq!(cut_at, start + OVER_MAX);

        let mut spared = meter(1, 0, start);
        let mut now = start;
        for _ in 0..100 {
            while !spared.count(0, now) {}
            now = spared.resumes_at().unwrap();
            assert_eq!(spared.pace(now), Pace::Read);
            spared.caught_up();
        }
    }

    #[test]
    fn one_message_that_would_take_longer_than_30_s_is_too_much() {
        let start = Instant::now();
        let mut meter = meter(0, 10, start);
        assert!(meter.count(1000, start));
        assert_eq!(meter.pace(start + seconds(29.9)), Pace::Wait);
        assert_eq!(meter.pace(start + OVER_MAX), Pace::TooMany);
    }

    #[test]
    fn permits_are_counted_by_address_and_given_back() {
        let addresses = Addresses::new(2);
        let take = |ip: &str| addresses.take(ip.parse().unwrap());
        let permits = (take("10.0.0.1"), take("::ffff:10.0.0.1"));
        assert!(permits.0.is_some() && permits.1.is_some());
        assert!(take("10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        drop(permits.0);
        assert!(take("10.0.0.1").is_some());
        drop(permits.1);
        assert!(
            addresses.counts.lock().is_empty(),
            "nothing is kept of who has left"
        );
        assert!(!Addresses::new(0).are_limited());
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let addresses = Addresses::new(1);
        let take = |ip: &str| addresses.take(ip.parse().unwrap());
        let permit = take("2001:db8:0:1::1");
        assert!(permit.is_some());
        assert!(take("2001:db8:0:1:ffff:ffff:ffff:ffff").is_none());
        assert!(take("2001:db8:0:2::1").is_some());
    }
}

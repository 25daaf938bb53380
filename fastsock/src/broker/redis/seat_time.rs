//! When a seat was taken: by this gateway's own count until Redis has recorded it, and by its epoch from then on.

/// One number, since an idle device costs one of these. An epoch is in milliseconds since 1970 and so beyond [`EPOCHS`]; no gateway runs
/// for that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeatTime(u64);

impl SeatTime {
    /// So many milliseconds after the broker started.
    pub(crate) fn since_start(ms: u64) -> Self {
        Self(ms.min(EPOCHS - 1))
    }

    /// Recorded in Redis under this epoch.
    pub(crate) fn recorded(epoch: u64) -> Self {
        Self(epoch.max(EPOCHS))
    }

    /// The epoch, which `epoch_of` tells of a moment since the start.
    pub(crate) fn epoch(self, epoch_of: impl FnOnce(u64) -> u64) -> u64 {
        match self.0 {
            ms if ms < EPOCHS => epoch_of(ms),
            epoch => epoch,
        }
    }
}

/// 34 years.
const EPOCHS: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_has_its_epoch_once_it_is_recorded() {
        let guess = |ms| 1_795_000_000_000 + ms;
        assert_eq!(SeatTime::since_start(7).epoch(guess), 1_795_000_000_007);
        assert_eq!(
            SeatTime::recorded(1_795_000_000_009).epoch(guess),
            1_795_000_000_009
        );
    }
}

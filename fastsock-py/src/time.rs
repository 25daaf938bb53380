//! Times as Python has them: seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::PyResult;

use crate::error::bad_argument;

/// A time in seconds since 1970, if one is given.
pub(crate) fn time_or(seconds: Option<f64>, otherwise: SystemTime) -> PyResult<SystemTime> {
    let Some(seconds) = seconds else {
        return Ok(otherwise);
    };
    let since = Duration::try_from_secs_f64(seconds).ok();
    since
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| {
            bad_argument(format!(
                "a time is 0 or more seconds since 1970, not {seconds}"
            ))
        })
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

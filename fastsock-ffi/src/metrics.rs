//! `fastsock_bridge_metrics`: all figures as text for Prometheus.

use std::ffi::c_char;

use fastsock::MetricsFormat;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    status::{Failure, fastsock_status},
    text,
};

/// How metrics are written.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_metrics_format {
    /// The text format of Prometheus, 0.0.4.
    TEXT = 0,
    /// OpenMetrics 1.0.0.
    OPENMETRICS = 1,
}

/// Gives all figures for Prometheus, as `/metrics` of the admin listener has them; docs/metrics.md says what they mean.
/// `format` is a fastsock_metrics_format. Free the text with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_metrics(
    bridge: Option<&fastsock_bridge>,
    format: u32,
    text: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(text, "text") }?;
    let format = match text::checked::<fastsock_metrics_format>(format) {
        Some(fastsock_metrics_format::TEXT) => MetricsFormat::Text,
        Some(fastsock_metrics_format::OPENMETRICS) => MetricsFormat::OpenMetrics,
        None => {
            return Err(Failure::argument(format!(
                "format: {format} is no fastsock_metrics_format"
            )));
        }
    };
    out.put(text::give(entered.core.metrics(format).into_bytes())?);
    Ok(())
}

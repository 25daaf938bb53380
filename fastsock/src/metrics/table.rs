//! The table of all metrics, in four parts. docs/metrics.md is made from it.

mod devices;
mod downlinks;
mod surroundings;
mod uplinks;

use std::fmt;

use super::{Family, Metric, MetricKind};
use crate::inspect::Figures;

/// All metrics, in the order of docs/metrics.md.
pub(super) static METRICS: [Metric; count()] = joined();

const PARTS: [&[Metric]; 4] = [
    devices::METRICS,
    uplinks::METRICS,
    downlinks::METRICS,
    surroundings::METRICS,
];

const fn count() -> usize {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
}

const fn joined<const N: usize>() -> [Metric; N] {
    let mut all = [PARTS[0][0]; N];
    let (mut next, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut at = 0;
        while at < PARTS[part].len() {
            all[next] = PARTS[part][at];
            (next, at) = (next + 1, at + 1);
        }
        part += 1;
    }
    all
}

type Read = fn(&Figures, &mut Family<'_>) -> fmt::Result;

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Counter,
        labels,
        help,
        advice,
        read,
    }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        labels,
        help,
        advice,
        read,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Histogram,
        labels,
        help,
        advice,
        read,
    }
}

const NONE: &[&str] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_no_label_is_a_client_id() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len(), "a name is there once");
        for metric in &METRICS {
            let name = metric.name;
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, metric.kind == MetricKind::Counter, "{name}");
            let is_ours = name.starts_with("fastsock_") || name.starts_with("process_");
            assert!(is_ours && !metric.labels.iter().any(|label| label.contains("client")));
            for text in [metric.help, metric.advice] {
                assert!(text.ends_with('.') && !text.contains('|'), "{name}: {text}");
            }
        }
    }
}

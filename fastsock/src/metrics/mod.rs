//! The figures of one bridge for Prometheus. All are in one table, `table`, which docs/metrics.md is made from, and read
//! from `inspect::Figures`.

mod table;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{gateway::shared::Shared, histogram::Durations, inspect::Figures};

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// The text format of Prometheus, 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows, until the bridge starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket.
    Histogram,
    /// Always 1; its labels say something.
    Info,
}

/// One metric of the bridge.
#[derive(Clone, Copy)]
pub struct Metric {
    /// As it is scraped, but for the `_bucket`, `_sum` and `_count` of a histogram.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels. A client id is never among them.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// When it deserves attention, or what it is good for.
    pub advice: &'static str,
    read: fn(&Figures, &mut Family<'_>) -> fmt::Result,
}

impl Metric {
    /// All metrics, in the order in which they are written.
    pub fn all() -> &'static [Self] {
        &table::METRICS
    }
}

impl MetricsFormat {
    /// The media type of HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl MetricKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// Writes all metrics as they are now. Looks at every outbox and every lane.
pub(crate) fn write(shared: &Shared, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures::gather(shared)));
    let mut text = String::new();
    let written = match format {
        MetricsFormat::Text => prometheus_text::encode(&mut text, &registry),
        MetricsFormat::OpenMetrics => text::encode(&mut text, &registry),
    };
    written.expect("a String takes all");
    text
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let is_host = |metric: &Metric| metric.name.starts_with("process_");
        let metrics = Metric::all().iter();
        for metric in metrics.filter(|metric| self.process.is_some() || !is_host(metric)) {
            let (name, kind) = match metric.kind {
                MetricKind::Counter => (
                    metric.name.strip_suffix("_total").unwrap_or(metric.name),
                    MetricType::Counter,
                ),
                MetricKind::Gauge => (metric.name, MetricType::Gauge),
                MetricKind::Histogram => (metric.name, MetricType::Histogram),
                MetricKind::Info => (
                    metric.name.strip_suffix("_info").unwrap_or(metric.name),
                    MetricType::Info,
                ),
            };
            let encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            (metric.read)(self, &mut Family { encoder, metric })?;
        }
        Ok(())
    }
}

/// Where a metric of the table writes its samples.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    metric: &'static Metric,
}

impl Family<'_> {
    /// The only sample of a metric without labels.
    fn one(&mut self, value: impl Into<Value>) -> fmt::Result {
        write_value(&mut self.encoder, value.into())
    }

    /// One sample, with the values of all labels.
    fn with(&mut self, labels: &[&str], value: impl Into<Value>) -> fmt::Result {
        debug_assert_eq!(labels.len(), self.metric.labels.len());
        let names = self.metric.labels.iter().copied();
        let labels: Vec<(&str, &str)> = names.zip(labels.iter().copied()).collect();
        let labels = labels.as_slice();
        if self.metric.kind == MetricKind::Info {
            return self.encoder.encode_info(&labels);
        }
        write_value(&mut self.encoder.encode_family(&labels)?, value.into())
    }

    /// A sample a label value, all of them counts.
    fn by<'l>(&mut self, counts: impl IntoIterator<Item = (&'l str, u64)>) -> fmt::Result {
        for (label, count) in counts {
            self.with(&[label], count)?;
        }
        Ok(())
    }
}

/// The value of a sample.
enum Value {
    Count(u64),
    /// What can be counted up only and is no integer.
    Total(f64),
    Level(f64),
    Durations(Durations),
}

fn write_value(encoder: &mut MetricEncoder<'_>, value: Value) -> fmt::Result {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(&count, None),
        Value::Total(total) => encoder.encode_counter::<NoLabelSet, _, u64>(&total, None),
        Value::Level(level) => encoder.encode_gauge(&level),
        Value::Durations(durations) => encoder.encode_histogram::<NoLabelSet>(
            durations.sum_seconds,
            durations.count(),
            &durations.buckets,
            None,
        ),
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Durations> for Value {
    fn from(durations: Durations) -> Self {
        Self::Durations(durations)
    }
}

/// A gauge that is an integer.
fn level(value: u64) -> Value {
    Value::Level(value as f64)
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({})", self.name)
    }
}

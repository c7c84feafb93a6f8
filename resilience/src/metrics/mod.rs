//! Prometheus metrics, read from the live state when they are asked for.
//!
//! Nothing here is on the path of a call: commands and methods count in atomics of their own.

mod breakers;
mod circuits;
#[cfg(feature = "channel")]
mod endpoints;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::fusebox::Shared;
use crate::latency::{Durations, PER_OCTAVE, upper_bound};

/// The metrics as `OpenMetrics` text.
pub(crate) fn text(shared: &Arc<Shared>) -> String {
    let mut registry = Registry::with_prefix("fusebox");
    registry.register_collector(Box::new(Live(Arc::clone(shared))));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        // A String takes every write.
        Err(_) => String::new(),
    }
}

#[derive(Debug)]
struct Live(Arc<Shared>);

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        circuits::commands(&self.0, &mut encoder)?;
        breakers::breakers(&self.0, &mut encoder)?;
        circuits::methods(&self.0, &mut encoder)?;
        #[cfg(feature = "channel")]
        endpoints::endpoints(&self.0, &mut encoder)?;
        feed(&self.0, &mut encoder)
    }
}

/// A family by name and help, with its samples.
fn family<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl IntoIterator<Item = ([(&'static str, String); N], u64)>,
) -> std::fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        let labels: Vec<_> = labels.into_iter().collect();
        sample(metric.encode_family(&labels)?, kind, value)?;
    }
    Ok(())
}

/// A metric without labels.
fn single(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    kind: MetricType,
    value: u64,
) -> std::fmt::Result {
    sample(encoder.encode_descriptor(name, help, None, kind)?, kind, value)
}

fn sample(encoder: MetricEncoder, kind: MetricType, value: u64) -> std::fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A family of histograms, in seconds.
fn histograms<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'static str, String); N], Durations)>,
) -> std::fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (labels, durations) in samples {
        let labels: Vec<_> = labels.into_iter().collect();
        // One bucket for each doubling, and one for all else.
        let mut buckets = vec![(durations.buckets[0], upper_bound(0))];
        buckets.extend(
            durations.buckets[1..]
                .chunks(PER_OCTAVE)
                .enumerate()
                .map(|(octave, counts)| (counts.iter().sum(), upper_bound((octave + 1) * PER_OCTAVE))),
        );
        let last = buckets.len() - 1;
        let bounds = buckets
            .into_iter()
            .enumerate()
            .map(|(n, (count, bound))| (if n == last { f64::MAX } else { bound.as_secs_f64() }, count));
        let bounds: Vec<_> = bounds.collect();
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            durations.sum.as_secs_f64(),
            durations.count(),
            &bounds,
            None,
        )?;
    }
    Ok(())
}

fn feed(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let applied = shared.applied.borrow().clone();
    let hash = applied.hash.map_or_else(|| "compiled-in".to_owned(), |hash| hash.to_string());
    family(encoder, "policy", "The policy in force", MetricType::Gauge, [([("hash", hash)], 1)])?;
    let rejecting = u64::from(applied.rejected.is_some());
    let help = "Whether the newest policy document was refused";
    single(encoder, "policy_rejecting", help, MetricType::Gauge, rejecting)?;
    let since = u64::try_from(applied.at.as_second()).unwrap_or_default();
    let help = "When the policy was put in force, seconds since the epoch";
    single(encoder, "policy_applied_timestamp_seconds", help, MetricType::Gauge, since)?;
    let counts = &shared.counts;
    let help = "Whether policies are being watched";
    single(encoder, "feed_connected", help, MetricType::Gauge, load(&counts.connected))?;
    for (name, help, count) in [
        ("policies_applied", "Policies put in force", &counts.applied),
        ("policies_refused", "Policy documents refused", &counts.refused),
        ("reports_written", "Reports written to etcd", &counts.reports),
        ("report_leases", "Leases taken for the report", &counts.leases),
    ] {
        single(encoder, name, help, MetricType::Counter, load(count))?;
    }
    Ok(())
}

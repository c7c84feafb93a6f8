//! Prometheus metrics, read from the live state when they are asked for.
//!
//! Nothing here is on the path of a call: commands and methods count in atomics of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fusebox_policy::wire::BreakerState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::breaker::felt;
use crate::fusebox::Shared;
use crate::outcome::Outcome;

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
        commands(&self.0, &mut encoder)?;
        breakers(&self.0, &mut encoder)?;
        methods(&self.0, &mut encoder)?;
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

fn commands(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.commands.all();
    let outcomes = all.iter().flat_map(|command| {
        Outcome::ALL.map(|outcome| {
            let labels = [("command", command.name.clone()), ("outcome", outcome.label().to_owned())];
            (labels, command.tally.of(outcome))
        })
    });
    family(encoder, "command_calls", "Calls of a command by outcome", MetricType::Counter, outcomes)?;
    let label = |name: &str| [("command", name.to_owned())];
    let fallbacks = all.iter().map(|command| (label(&command.name), load(&command.fallbacks)));
    family(encoder, "command_fallbacks", "Calls answered by a fallback", MetricType::Counter, fallbacks)?;
    let in_flight = all.iter().map(|command| (label(&command.name), u64::from(command.in_flight.count())));
    family(encoder, "command_in_flight", "Calls in flight", MetricType::Gauge, in_flight)?;
    let limits = all.iter().filter_map(|command| {
        let limit = command.policy().max_concurrent_requests?;
        Some((label(&command.name), u64::from(limit)))
    });
    family(encoder, "command_limit", "Calls that may be in flight", MetricType::Gauge, limits)?;
    let unknown = shared.commands.unknown().len() as u64;
    single(encoder, "unknown_commands", "Commands that the policy does not name", MetricType::Gauge, unknown)
}

fn breakers(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.commands.all();
    let label = |name: &str| [("command", name.to_owned())];
    let states = all.iter().map(|command| {
        let state = match felt(command.policy().circuit_breaker.as_ref(), command.gate.state().phase) {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        (label(&command.name), state)
    });
    let help = "As callers feel it, under its mode: 0 closed, 1 half-open, 2 open";
    family(encoder, "breaker_state", help, MetricType::Gauge, states)?;
    let since = all.iter().map(|command| {
        let since = shared.clock.timestamp(command.gate.last().at).as_second();
        (label(&command.name), u64::try_from(since).unwrap_or_default())
    });
    let help = "When a breaker came into its state, seconds since the epoch";
    family(encoder, "breaker_changed_timestamp_seconds", help, MetricType::Gauge, since)?;
    let transitions = all.iter().flat_map(|command| {
        let counts = &command.gate.transitions;
        [("open", &counts.opened), ("half_open", &counts.half_opened), ("closed", &counts.closed)]
            .map(|(to, count)| ([("command", command.name.clone()), ("to", to.to_owned())], load(count)))
    });
    family(
        encoder,
        "breaker_transitions",
        "Changes of a breaker by new state",
        MetricType::Counter,
        transitions,
    )?;
    let stale = all.iter().map(|command| (label(&command.name), load(&command.gate.transitions.stale)));
    let help = "Outcomes of calls admitted under an earlier state of the breaker, which move nothing";
    family(encoder, "breaker_stale_outcomes", help, MetricType::Counter, stale)
}

fn methods(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.methods.all();
    let outcomes = all.iter().flat_map(|method| {
        let served = |outcome: &Outcome| *outcome != Outcome::Open;
        Outcome::ALL.into_iter().filter(served).map(|outcome| {
            let labels = [("method", method.label.clone()), ("outcome", outcome.label().to_owned())];
            (labels, method.tally.of(outcome))
        })
    });
    family(encoder, "server_requests", "Requests to a method by outcome", MetricType::Counter, outcomes)?;
    let in_flight =
        all.iter().map(|method| ([("method", method.label.clone())], u64::from(method.in_flight.count())));
    family(encoder, "server_in_flight", "Requests in flight", MetricType::Gauge, in_flight)
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

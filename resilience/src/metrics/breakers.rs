//! The metrics of breakers.

use fusebox_policy::wire::BreakerState;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{family, load};
use crate::breaker::felt;
use crate::fusebox::Shared;

pub(super) fn breakers(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.commands.all();
    let label = |name: &str| [("command", name.to_owned())];
    let states = all.iter().map(|command| {
        let state = match felt(command.breaker_policy().as_ref(), command.circuit.fuse.gate.state().phase) {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        (label(&command.circuit.name), state)
    });
    let help = "As callers feel it, under its mode: 0 closed, 1 half-open, 2 open";
    family(encoder, "breaker_state", help, MetricType::Gauge, states)?;
    let since = all.iter().map(|command| {
        let since = shared.clock.timestamp(command.circuit.fuse.last().at).as_second();
        (label(&command.circuit.name), u64::try_from(since).unwrap_or_default())
    });
    let help = "When a breaker came into its state, seconds since the epoch";
    family(encoder, "breaker_changed_timestamp_seconds", help, MetricType::Gauge, since)?;
    let now = shared.clock.now().tick();
    let window = all.iter().flat_map(|command| {
        let counts = command.circuit.fuse.gate.counts(now);
        [("good", counts.good), ("bad", counts.bad), ("slow", counts.slow)].map(|(verdict, count)| {
            ([("command", command.circuit.name.clone()), ("verdict", verdict.to_owned())], count)
        })
    });
    let help =
        "Calls in the rolling window that a breaker judges by: good, bad, and those of either that were slow";
    family(encoder, "breaker_window_calls", help, MetricType::Gauge, window)?;
    let transitions = all.iter().flat_map(|command| {
        let counts = &command.circuit.fuse.gate.transitions;
        [("open", &counts.opened), ("half_open", &counts.half_opened), ("closed", &counts.closed)].map(
            |(to, count)| ([("command", command.circuit.name.clone()), ("to", to.to_owned())], load(count)),
        )
    });
    let help = "Changes of a breaker by new state";
    family(encoder, "breaker_transitions", help, MetricType::Counter, transitions)?;
    let stale = all
        .iter()
        .map(|command| (label(&command.circuit.name), load(&command.circuit.fuse.gate.transitions.stale)));
    let help = "Outcomes of calls admitted under an earlier state of the breaker, which move nothing";
    family(encoder, "breaker_stale_outcomes", help, MetricType::Counter, stale)
}

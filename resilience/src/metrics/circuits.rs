//! The metrics of commands and methods.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{family, histograms, load, single};
use crate::circuit::Circuit;
use crate::fusebox::Shared;
use crate::outcome::Outcome;

pub(super) fn commands(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.commands.all();
    let circuits: Vec<_> = all.iter().map(|command| &command.circuit).collect();
    let kind = Kind { prefix: "command", label: "command", total: "calls", what: "Calls of a command" };
    kind.encode(encoder, &circuits, &Outcome::ALL)?;
    let of = |count: fn(&crate::command::state::CommandState) -> u64| {
        all.iter().map(move |command| ([("command", command.circuit.name.clone())], count(command)))
    };
    let help = "Calls answered by a fallback";
    family(encoder, "command_fallbacks", help, MetricType::Counter, of(|c| load(&c.fallbacks.ran)))?;
    let help = "Fallbacks that were not run because too many were running";
    let rejected = of(|c| load(&c.fallbacks.rejected));
    family(encoder, "command_fallbacks_rejected", help, MetricType::Counter, rejected)?;
    let help = "Fallbacks that failed themselves, of those that ran";
    let failed = of(|c| load(&c.fallbacks.failed));
    family(encoder, "command_fallbacks_failed", help, MetricType::Counter, failed)?;
    let help = "Attempts after the first";
    family(encoder, "command_retries", help, MetricType::Counter, of(|c| load(&c.retries.made)))?;
    let help = "Retries that were not made because the budget was spent";
    let over_budget = of(|c| load(&c.retries.over_budget));
    family(encoder, "command_retries_over_budget", help, MetricType::Counter, over_budget)?;
    let unknown = shared.commands.unknown().len() as u64;
    single(encoder, "unknown_commands", "Commands that the policy does not name", MetricType::Gauge, unknown)
}

pub(super) fn methods(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    let all = shared.methods.all();
    let circuits: Vec<_> = all.iter().map(|method| &method.circuit).collect();
    let served: Vec<_> = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Open).collect();
    let kind = Kind { prefix: "server", label: "method", total: "requests", what: "Requests to a method" };
    kind.encode(encoder, &circuits, &served)?;
    let fallbacks =
        all.iter().map(|method| ([("method", method.circuit.name.clone())], load(&method.fallbacks)));
    let help = "Requests answered by the policy's fallback";
    family(encoder, "server_fallbacks", help, MetricType::Counter, fallbacks)
}

/// How a kind of circuit is named.
struct Kind {
    prefix: &'static str,
    label: &'static str,
    total: &'static str,
    what: &'static str,
}

impl Kind {
    /// What all circuits have.
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder,
        circuits: &[&Circuit],
        outcomes: &[Outcome],
    ) -> std::fmt::Result {
        let name = |name: &str| format!("{}_{name}", self.prefix);
        let label = |circuit: &Circuit| [(self.label, circuit.name.clone())];
        let ended = circuits.iter().flat_map(|circuit| {
            outcomes.iter().map(|outcome| {
                let labels = [(self.label, circuit.name.clone()), ("outcome", outcome.label().to_owned())];
                (labels, circuit.tally(*outcome))
            })
        });
        let help = format!("{} by outcome", self.what);
        family(encoder, &name(self.total), &help, MetricType::Counter, ended)?;
        let help = "Time to the answer or the deadline. What was ready at once is in the lowest bucket, and \
                    nothing of the sum";
        let durations = circuits.iter().map(|circuit| (label(circuit), circuit.durations()));
        histograms(encoder, &name("duration"), help, durations)?;
        let help = format!("{} in flight", self.what);
        let in_flight =
            circuits.iter().map(|circuit| (label(circuit), circuit.fuse.in_flight.count().into()));
        family(encoder, &name("in_flight"), &help, MetricType::Gauge, in_flight)?;
        let help = format!("{} that may be in flight", self.what);
        let limits = circuits
            .iter()
            .filter_map(|circuit| Some((label(circuit), circuit.fuse.terms().limit?.get().into())));
        family(encoder, &name("limit"), &help, MetricType::Gauge, limits)?;
        let help = format!("{} that may be made a second, of this instance", self.what);
        let rates = circuits.iter().filter_map(|circuit| Some((label(circuit), circuit.fuse.per_second()?)));
        family(encoder, &name("rate_limit"), &help, MetricType::Gauge, rates)?;
        self.shadows(encoder, circuits)
    }

    /// What candidates would have done.
    fn shadows(&self, encoder: &mut DescriptorEncoder, circuits: &[&Circuit]) -> std::fmt::Result {
        let decisions = circuits.iter().filter_map(|circuit| Some((circuit, circuit.shadow()?)));
        let decisions = decisions.flat_map(|(circuit, shadow)| {
            let counts = &shadow.counts;
            [
                ("opened", &counts.opened),
                ("open", &counts.refused),
                ("rejected", &counts.limited),
                ("rate_limited", &counts.rate_limited),
                ("timeout", &counts.timed_out),
                ("asked", &counts.calls),
            ]
            .map(|(decision, count)| {
                let labels = [(self.label, circuit.name.clone()), ("decision", decision.to_owned())];
                (labels, load(count))
            })
        });
        let help = "What the candidate in the policy's shadow would have decided, of all it was asked: opened \
                    counts its breaker's openings";
        family(encoder, &format!("{}_shadow", self.prefix), help, MetricType::Counter, decisions)
    }
}

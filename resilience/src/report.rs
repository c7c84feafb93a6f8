//! What an instance says of itself: a function of its state.

use std::sync::atomic::{AtomicU64, Ordering};

use fusebox_policy::policy::{BreakerMode, BreakerPolicy};
use fusebox_policy::wire::{
    BreakerReport, BreakerState, MAX_REPORTED, OutlierReport, Report, ShadowKind, ShadowReport,
};
use jiff::Timestamp;

use crate::breaker::state::Phase;
use crate::breaker::{Change, felt};
use crate::clock::Clock;
use crate::env::Identity;
use crate::fusebox::Shared;

/// The report of this instance as it is now.
pub(crate) fn report(identity: &Identity, boot: &str, shared: &Shared) -> Report {
    let applied = shared.applied.borrow().clone();
    let breakers = shared.commands.all().into_iter().filter_map(|command| {
        let (policy, fuse) = (command.breaker_policy(), &command.circuit.fuse);
        let state = fuse.gate.state().phase;
        breaker(&command.circuit.name, policy.as_ref(), state, &fuse.last(), shared.clock, applied.at)
    });
    let breakers = breakers.take(MAX_REPORTED).collect();
    let mut unknown_commands = shared.commands.unknown();
    unknown_commands.truncate(MAX_REPORTED);
    Report {
        instance: identity.name.clone(),
        boot: boot.to_owned(),
        library: concat!("fusebox ", env!("CARGO_PKG_VERSION")).to_owned(),
        hash: applied.hash,
        applied_at: applied.at,
        rejected: applied.rejected,
        server_layer: Some(shared.attached.load(Ordering::Relaxed)),
        unknown_commands,
        breakers,
        shadow: shadows(shared),
        outliers: outliers(shared),
    }
}

#[cfg(feature = "channel")]
fn outliers(shared: &Shared) -> Vec<OutlierReport> {
    let report = |outlier: crate::channel::Outlier| OutlierReport {
        service: outlier.service,
        command: outlier.command,
        endpoint: outlier.endpoint.to_string(),
        since: outlier.since,
        reason: outlier.reason,
    };
    shared.channels.outliers().into_iter().take(MAX_REPORTED).map(report).collect()
}

#[cfg(not(feature = "channel"))]
fn outliers(_: &Shared) -> Vec<OutlierReport> {
    Vec::new()
}

/// What the candidates have decided.
fn shadows(shared: &Shared) -> Vec<ShadowReport> {
    let commands = shared.commands.all().into_iter().map(|command| (ShadowKind::Command, &command.circuit));
    let methods = shared.methods.all().into_iter().map(|method| (ShadowKind::Method, &method.circuit));
    let shadows = commands.chain(methods).filter_map(|(kind, circuit)| {
        let counts = &circuit.shadow()?.counts;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(ShadowReport {
            name: circuit.name.clone(),
            kind,
            calls: load(&counts.calls),
            would_open: load(&counts.opened),
            would_refuse: load(&counts.refused),
            would_limit: load(&counts.limited),
            would_rate_limit: load(&counts.rate_limited),
            would_time_out: load(&counts.timed_out),
        })
    });
    shadows.take(MAX_REPORTED).collect()
}

/// A breaker as its callers feel it; None if it lets every call pass.
fn breaker(
    command: &str,
    policy: Option<&BreakerPolicy>,
    phase: Phase,
    last: &Change,
    clock: &Clock,
    applied_at: Timestamp,
) -> Option<BreakerReport> {
    let state = felt(policy, phase);
    if state == BreakerState::Closed {
        return None;
    }
    let (since, reason) = match policy?.mode {
        BreakerMode::ForcedOpen => (applied_at, "forced open by the policy".to_owned()),
        _ => (clock.timestamp(last.at), last.reason.to_string()),
    };
    Some(BreakerReport { command: command.to_owned(), state, since, reason })
}

#[cfg(test)]
mod tests {
    use fusebox_policy::policy::Policy;

    use super::*;
    use crate::breaker::{Reason, State};
    use crate::clock::Tick;

    #[tokio::test(start_paused = true)]
    async fn a_breaker_is_reported_as_its_callers_feel_it() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::detect(start);
        let two_seconds_later = Tick(clock.now().tick().0 + 2000);
        let open = State::START.trip(two_seconds_later);
        let reason = Reason::Errors { percent: 30, volume: 40 };
        let last = Change { state: open, at: two_seconds_later, reason };
        let report = |mode, state: State| {
            let policy = BreakerPolicy { mode, ..BreakerPolicy::default() };
            breaker("find_user", Some(&policy), state.phase, &last, &clock, start)
        };
        let said = report(BreakerMode::Enforce, open).unwrap();
        assert_eq!(
            (said.state, said.since.to_string().as_str()),
            (BreakerState::Open, "2026-01-01T00:00:02Z")
        );
        assert_eq!(said.reason, "30 % errors of 40 calls");
        assert_eq!(report(BreakerMode::Enforce, State::START), None);
        assert_eq!(report(BreakerMode::ForcedClosed, open), None);
        assert_eq!(report(BreakerMode::Disabled, open), None);
        let forced = report(BreakerMode::ForcedOpen, State::START).unwrap();
        assert_eq!((forced.since, forced.reason.as_str()), (start, "forced open by the policy"));
    }

    #[test]
    fn a_report_names_at_most_so_many_commands_and_breakers() {
        let mut policy = Policy::compiled_in();
        let breaker = policy.outbound.default.circuit_breaker.as_mut().unwrap();
        breaker.mode = BreakerMode::ForcedOpen;
        let shared = Shared::new(policy, Some("00".parse().unwrap()));
        for n in 0..40 {
            shared.command(&format!("c{n:02}"));
        }
        let identity = Identity { name: "user-1".into(), key: "uid-1".into() };
        let report = report(&identity, "boot", &shared);
        assert_eq!((report.unknown_commands.len(), report.breakers.len()), (MAX_REPORTED, MAX_REPORTED));
        assert_eq!(
            (report.unknown_commands[0].as_str(), report.breakers[0].command.as_str()),
            ("c00", "c00")
        );
    }
}

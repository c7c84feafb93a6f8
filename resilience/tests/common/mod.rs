//! Policies and metrics, as tests want to write them.
#![allow(dead_code, missing_docs)] // each test binary uses a part

pub mod calls;
pub mod http;

use fusebox::{Fusebox, Policy};
use fusebox_policy::policy::{BreakerPolicy, CommandPolicy};

/// A breaker that opens at half of four calls, sleeps a second and counts ten.
pub fn breaker() -> BreakerPolicy {
    BreakerPolicy {
        error_percent_threshold: 50.try_into().unwrap(),
        request_volume_threshold: 4.try_into().unwrap(),
        sleep_window_ms: 1000.try_into().unwrap(),
        ..BreakerPolicy::default()
    }
}

/// A command with that breaker, 100 ms, and no limit.
pub fn command() -> CommandPolicy {
    CommandPolicy {
        timeout_ms: Some(100.try_into().unwrap()),
        circuit_breaker: Some(breaker()),
        ..CommandPolicy::default()
    }
}

/// A policy with one command, `c`.
pub fn policy(command: CommandPolicy) -> Policy {
    let mut policy = Policy::compiled_in();
    policy.outbound.commands.insert("c".to_owned(), command);
    policy
}

/// The value of a metric; zero if it is not there.
pub fn metric(fusebox: &Fusebox, line: &str) -> u64 {
    value(&fusebox.registry_text(), line)
}

pub fn value(text: &str, line: &str) -> u64 {
    let found =
        text.lines().find_map(|l| l.strip_prefix("fusebox_")?.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no metric {line} in\n{text}"))
}

/// How often calls of `c` ended so.
pub fn outcomes(fusebox: &Fusebox, outcome: &str) -> u64 {
    metric(fusebox, &format!("command_calls_total{{command=\"c\",outcome=\"{outcome}\"}}"))
}

/// 0 closed, 1 half-open, 2 open.
pub fn state(fusebox: &Fusebox) -> u64 {
    metric(fusebox, "breaker_state{command=\"c\"}")
}

pub fn in_flight(fusebox: &Fusebox) -> u64 {
    metric(fusebox, "command_in_flight{command=\"c\"}")
}

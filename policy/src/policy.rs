//! A validated policy: what an instance runs, whole or not at all.
//!
//! Inheritance is resolved before a policy is published, so a reader needs no rules: every method
//! and command carries its full policy. Durations are whole milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;
pub use crate::method_match::MethodMatch;

/// The most methods, and the most commands, that one policy may name.
pub const MAX_ENTRIES: usize = 64;

/// Why a value cannot be part of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, but is {value}")]
pub struct OutOfRange {
    what: &'static str,
    range: &'static str,
    value: String,
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $range:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($inner);

        impl TryFrom<u64> for $name {
            type Error = OutOfRange;

            fn try_from(value: u64) -> Result<Self, OutOfRange> {
                let ok: fn(u64) -> Option<$inner> = $ok;
                ok(value).map(Self).ok_or(OutOfRange { what: $what, range: $range, value: value.to_string() })
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0.into()
            }
        }
    };
}

/// 1 ms to 1 h, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Millis(u64);

impl Millis {
    /// The value as a duration.
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<u64> for Millis {
    type Error = OutOfRange;

    fn try_from(value: u64) -> Result<Self, OutOfRange> {
        if value >= 1 && u128::from(value) <= duration::MAX.as_millis() {
            Ok(Self(value))
        } else {
            Err(OutOfRange { what: "a duration", range: "1 to 3600000 ms", value: value.to_string() })
        }
    }
}

impl From<Millis> for u64 {
    fn from(value: Millis) -> u64 {
        value.0
    }
}

impl TryFrom<Duration> for Millis {
    type Error = OutOfRange;

    fn try_from(value: Duration) -> Result<Self, OutOfRange> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).try_into()
    }
}

bounded! {
    /// How many requests may be in flight at once: 1 to 1,000,000.
    Limit(u32), "a concurrency limit", "1 to 1000000",
    |v| u32::try_from(v).ok().filter(|v| (1..=1_000_000).contains(v))
}
bounded! {
    /// 1 to 100 percent.
    Percent(u8), "a percentage", "1 to 100", |v| u8::try_from(v).ok().filter(|v| (1..=100).contains(v))
}
bounded! {
    /// How many calls a window must hold before it is judged: 1 to 1,000,000.
    Volume(u32), "a request volume", "1 to 1000000",
    |v| u32::try_from(v).ok().filter(|v| (1..=1_000_000).contains(v))
}
bounded! {
    /// How many probes a half-open breaker admits, and how many must succeed to close it: 1 to 100.
    Probes(u8), "the number of probes", "1 to 100", |v| u8::try_from(v).ok().filter(|v| (1..=100).contains(v))
}

impl Limit {
    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}
impl Percent {
    /// The value.
    pub const fn get(self) -> u8 {
        self.0
    }
}
impl Volume {
    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}
impl Probes {
    /// The value.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Everything an instance runs under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Calls to this service.
    pub inbound: Inbound,
    /// Calls that this service makes.
    pub outbound: Outbound,
}

/// Policies of the calls to a service, attached by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// For requests that match no method; they share its one concurrency limit.
    pub default: ServerPolicy,
    /// The first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodPolicy>,
}

/// What a server holds a request to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerPolicy {
    /// After it the work is cancelled and the caller told. None: only the caller's own deadline counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Millis>,
    /// Requests in flight at once; one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests: Option<Limit>,
}

/// The policy of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MethodPolicy {
    /// Which requests it holds for.
    #[serde(rename = "match")]
    pub matches: MethodMatch,
    /// Its policy, with everything inherited filled in.
    pub policy: ServerPolicy,
}

/// Policies of the calls a service makes, attached by command name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// For a command that the policy does not name. Such a name is reported.
    pub default: CommandPolicy,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, CommandPolicy>,
}

/// What one command is held to. Each command has a breaker and a limit of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandPolicy {
    /// After it the call is cancelled. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Millis>,
    /// Calls in flight at once; one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests: Option<Limit>,
    /// None: no breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<BreakerPolicy>,
    /// Whether the fallback that the code offers is used.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub fallback_enabled: bool,
}

impl Default for CommandPolicy {
    /// No limits; fallbacks run.
    fn default() -> Self {
        Self {
            timeout_ms: None,
            max_concurrent_requests: None,
            circuit_breaker: None,
            fallback_enabled: true,
        }
    }
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_true(value: &bool) -> bool {
    *value
}

/// When a breaker opens and how it closes again.
///
/// The error percentage is `(failures + timeouts) / (successes + failures + timeouts)` over the
/// rolling window, compared inclusively by integer arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Opens at this percentage of errors or above.
    pub error_percent_threshold: Percent,
    /// Fewer counted calls than this in the window are not judged.
    pub request_volume_threshold: Volume,
    /// How long it stays open before it lets probes through.
    pub sleep_window_ms: Millis,
    /// The length of the window, at least one second; ten buckets.
    pub rolling_window_ms: Millis,
    /// How many probes half-open admits, and how many must succeed to close.
    pub half_open_probes: Probes,
    /// What the breaker does with its verdict.
    #[serde(default, skip_serializing_if = "BreakerMode::is_enforce")]
    pub mode: BreakerMode,
}

/// What a breaker does with its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum BreakerMode {
    /// Opens and closes by what it sees.
    #[default]
    Enforce,
    /// Refuses every call, whatever it sees.
    ForcedOpen,
    /// Admits every call; still counts.
    ForcedClosed,
    /// Admits every call and counts nothing.
    Disabled,
}

impl BreakerMode {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    const fn is_enforce(&self) -> bool {
        matches!(self, Self::Enforce)
    }
}

/// Hystrix's defaults (hystrix-go, settings.go): what an instance runs before it has any policy.
pub mod hystrix {
    /// Milliseconds until a call is given up.
    pub const TIMEOUT_MS: u64 = 1000;
    /// Calls in flight at once.
    pub const MAX_CONCURRENT_REQUESTS: u64 = 10;
    /// Percentage of errors that opens the breaker.
    pub const ERROR_PERCENT_THRESHOLD: u64 = 50;
    /// Calls in the window before it is judged.
    pub const REQUEST_VOLUME_THRESHOLD: u64 = 20;
    /// Milliseconds an open breaker waits before a probe.
    pub const SLEEP_WINDOW_MS: u64 = 5000;
    /// Milliseconds of the rolling window.
    pub const ROLLING_WINDOW_MS: u64 = 10_000;
}

impl Default for BreakerPolicy {
    /// [`hystrix`]'s defaults with one probe.
    fn default() -> Self {
        Self {
            error_percent_threshold: Percent(50),
            request_volume_threshold: Volume(20),
            sleep_window_ms: Millis(hystrix::SLEEP_WINDOW_MS),
            rolling_window_ms: Millis(hystrix::ROLLING_WINDOW_MS),
            half_open_probes: Probes(1),
            mode: BreakerMode::Enforce,
        }
    }
}

impl Policy {
    /// What an instance runs when it never received a policy: no limits inbound, [`hystrix`]'s
    /// defaults outbound.
    pub fn compiled_in() -> Self {
        let command = CommandPolicy {
            timeout_ms: Some(Millis(hystrix::TIMEOUT_MS)),
            max_concurrent_requests: Some(Limit(10)),
            circuit_breaker: Some(BreakerPolicy::default()),
            fallback_enabled: true,
        };
        Self { inbound: Inbound::default(), outbound: Outbound { default: command, ..Outbound::default() } }
    }

    /// Rules across fields; a policy that breaks one is refused whole. The paths name the wire fields.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.inbound.methods.len() > MAX_ENTRIES {
            found.push(format!("inbound.methods: at most {MAX_ENTRIES} methods"));
        }
        for (n, method) in self.inbound.methods.iter().enumerate() {
            let mut earlier = self.inbound.methods[..n].iter().map(|earlier| &earlier.matches).enumerate();
            let this = &method.matches;
            match earlier.find(|(_, earlier)| earlier.covers(this)) {
                Some((first, same)) if this.covers(same) => found.push(format!(
                    "inbound.methods[{n}]: the same match as methods[{first}], which wins: remove one"
                )),
                Some((first, wider)) => found.push(format!(
                    "inbound.methods[{n}]: {this} is never reached, as methods[{first}], {wider}, comes first and \
                     matches all of it: move it before methods[{first}], or remove it"
                )),
                None => {}
            }
        }
        if self.outbound.commands.len() > MAX_ENTRIES {
            found.push(format!("outbound.commands: at most {MAX_ENTRIES} commands"));
        }
        let commands = self.outbound.commands.iter().map(|(name, policy)| (name.as_str(), policy));
        for (name, policy) in std::iter::once(("default", &self.outbound.default)).chain(commands) {
            let Some(breaker) = &policy.circuit_breaker else { continue };
            if breaker.rolling_window_ms < Millis(1000) {
                found.push(format!(
                    "outbound {name}: circuitBreaker.rollingWindow must be at least 1s, ten buckets of 100ms"
                ));
            }
            if let Some(timeout) = policy.timeout_ms
                && timeout > breaker.rolling_window_ms
            {
                found.push(format!(
                    "outbound {name}: timeout {}ms is longer than circuitBreaker.rollingWindow {}ms, so the \
                     breaker could never see {} timeouts together: shorten the timeout or lengthen the window",
                    timeout.0,
                    breaker.rolling_window_ms.0,
                    breaker.request_volume_threshold.0
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_do_not_deserialize() {
        for (json, message) in [
            (r#"{"timeoutMs":0}"#, "a duration must be 1 to 3600000 ms, but is 0"),
            (r#"{"maxConcurrentRequests":0}"#, "a concurrency limit must be 1 to 1000000, but is 0"),
            (r#"{"slowCall":1}"#, "unknown field `slowCall`"),
        ] {
            let error = serde_json::from_str::<CommandPolicy>(json).expect_err(json).to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }

    #[test]
    fn the_compiled_in_policy_is_valid() {
        assert_eq!(Policy::compiled_in().violations(), Vec::<String>::new());
    }

    #[test]
    fn a_timeout_longer_than_the_window_is_a_violation() {
        let mut policy = Policy::compiled_in();
        policy.outbound.default.timeout_ms = Some(Millis(20_000));
        let found = policy.violations();
        assert!(found.len() == 1 && found[0].contains("timeout 20000ms is longer"), "{found:?}");
    }

    #[test]
    fn a_method_that_an_earlier_one_covers_is_a_violation() {
        let grpc = |service: &str, method: Option<&str>| MethodMatch::Grpc {
            service: service.into(),
            method: method.map(Into::into),
        };
        let http = |method: Option<&str>, path_prefix: &str| MethodMatch::Http {
            method: method.map(Into::into),
            path_prefix: path_prefix.into(),
        };
        let violations = |methods: Vec<MethodMatch>| {
            let mut policy = Policy::compiled_in();
            let policy_of = |matches| MethodPolicy { matches, policy: ServerPolicy::default() };
            policy.inbound.methods = methods.into_iter().map(policy_of).collect();
            policy.violations()
        };
        assert_eq!(
            violations(vec![http(None, "/a"), grpc("user.v1.U", None), grpc("user.v1.U", Some("Get"))]),
            [
                "inbound.methods[2]: user.v1.U/Get is never reached, as methods[1], user.v1.U/*, comes first and \
              matches all of it: move it before methods[1], or remove it"
            ]
        );
        assert_eq!(
            violations(vec![http(Some("GET"), "/users"), http(Some("GET"), "/users/")]),
            ["inbound.methods[1]: the same match as methods[0], which wins: remove one"]
        );
        let narrow_first = vec![grpc("user.v1.U", Some("Get")), http(Some("GET"), "/a/b"), http(None, "/a")];
        assert_eq!(violations(narrow_first), Vec::<String>::new());
    }
}

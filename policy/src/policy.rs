//! A validated policy: what an instance runs, whole or not at all.
//!
//! Inheritance is resolved before a policy is published, so a reader needs no rules: every method
//! and command carries its full policy. Durations are whole milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::answer::StaticAnswer;
pub use crate::breaker::{BreakerMode, BreakerPolicy, SlowCall, hystrix};
pub use crate::builder::{
    CircuitBreakerBuilder, CommandBuilder, InvalidPolicy, MethodBuilder, PolicyBuilder, RateLimitBuilder,
    RetryBuilder, ShadowBuilder,
};
pub use crate::codes::{ErrorClasses, ErrorCode, UnknownCode};
pub use crate::limits::{
    Attempts, Burst, Limit, Millis, OutOfRange, Percent, Probes, Rate, RateLimit, RateScope, Volume,
};
pub use crate::method_match::MethodMatch;

/// The most methods, and the most commands, that one policy may name.
pub const MAX_ENTRIES: usize = 64;

/// Retries for each hundred calls where nothing is said: Finagle's (`RetryBudget`, `percentCanRetry` 0.2) and
/// Linkerd's (`retryBudget.retryRatio` 0.2), both over ten seconds.
pub(crate) const RETRY_BUDGET_PERCENT: u32 = 20;

/// Everything an instance runs under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Calls to this service.
    pub inbound: Inbound,
    /// Calls that this service makes.
    pub outbound: Outbound,
    /// A candidate that decides and counts but never acts. None: no candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// A candidate for the policy, complete where it is given: it decides on every call and counts what it would
/// have done, but never acts. Of what could only act, fallbacks and retries, it holds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shadow {
    /// Instead of the policy's. None: no candidate for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Instead of the policy's. None: no candidate for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
}

/// Policies of the calls to a service, attached by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// For requests that match no method; they share its one concurrency limit.
    #[cfg_attr(feature = "crd", schemars(extend("properties" = { "fallback": { "type": "null" } })))]
    pub default: ServerPolicy,
    /// The first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(extend("maxItems" = MAX_ENTRIES)))]
    pub methods: Vec<MethodPolicy>,
}

/// What a server holds a request to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerPolicy {
    /// After it the work is cancelled and the caller told. None: only the caller's own deadline counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Millis>,
    /// Requests in flight at once; one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests: Option<Limit>,
    /// Requests a second; one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Answered in place of a refusal or a timeout. None: the caller gets the error. Of a method
    /// only, since the answer has the method's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<StaticAnswer>,
}

/// The policy of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// For a command that the policy does not name. Such a name is reported.
    pub default: CommandPolicy,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "crd", schemars(extend("maxProperties" = MAX_ENTRIES)))]
    pub commands: BTreeMap<String, CommandPolicy>,
}

/// What one command is held to. Each command has a breaker and a limit of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandPolicy {
    /// After it the call is cancelled. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Millis>,
    /// Calls in flight at once; one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests: Option<Limit>,
    /// Calls over time, one more is refused at once. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// None: no breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<BreakerPolicy>,
    /// How a failed call that is safe to repeat is tried again. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Where the classes of errors differ from the default.
    #[serde(default, skip_serializing_if = "ErrorClasses::is_empty")]
    pub errors: ErrorClasses,
    /// Whether the fallback that the code offers is used.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[cfg_attr(feature = "crd", schemars(extend("default" = true)))]
    pub fallback_enabled: bool,
    /// Fallbacks in flight at once; one more is not run and the error reaches the caller. None: 10,
    /// the default of [`hystrix`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_max_concurrent_requests: Option<Limit>,
}

/// How a failed call is tried again, within the call's own timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Tries of one call, the first included.
    pub max_attempts: Attempts,
    /// After it one try is given up; at most the command's timeout. None: a try has what is left of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout_ms: Option<Millis>,
    /// Retries for each hundred calls of the last ten seconds; one more is not made, so that retries cannot
    /// multiply the load on a service that is down.
    pub budget_percent: Percent,
}

impl Default for CommandPolicy {
    /// No limits; fallbacks run.
    fn default() -> Self {
        Self {
            timeout_ms: None,
            max_concurrent_requests: None,
            rate_limit: None,
            circuit_breaker: None,
            retry: None,
            errors: ErrorClasses::default(),
            fallback_enabled: true,
            fallback_max_concurrent_requests: None,
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

impl Policy {
    /// What an instance runs when it never received a policy: no limits inbound, [`hystrix`]'s
    /// defaults outbound.
    pub fn compiled_in() -> Self {
        let command = CommandPolicy {
            timeout_ms: Some(Millis(hystrix::TIMEOUT_MS)),
            max_concurrent_requests: Some(Limit(10)),
            circuit_breaker: Some(BreakerPolicy::default()),
            ..CommandPolicy::default()
        };
        let outbound = Outbound { default: command, ..Outbound::default() };
        Self { inbound: Inbound::default(), outbound, shadow: None }
    }

    /// Whether an instance needs to know how many there are: by a rate limit of [`RateScope::Service`] that
    /// acts, not by one of the shadow.
    pub fn shares_rates(&self) -> bool {
        let methods = self.inbound.methods.iter().map(|method| &method.policy);
        let methods = methods.chain([&self.inbound.default]).map(|policy| policy.rate_limit);
        let commands = self.outbound.commands.values().chain([&self.outbound.default]);
        let mut all = methods.chain(commands.map(|policy| policy.rate_limit)).flatten();
        all.any(|rate| rate.scope == RateScope::Service)
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
            (
                r#"{"retry":{"maxAttempts":1,"budgetPercent":20}}"#,
                "the number of attempts must be 2 to 10, but is 1",
            ),
            (r#"{"slowCall":1}"#, "unknown field `slowCall`"),
        ] {
            let error = serde_json::from_str::<CommandPolicy>(json).expect_err(json).to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }

    /// What is not said is not written, so that policies from before a field keep their bytes and hash.
    #[test]
    fn defaults_are_not_written() {
        let text = |policy: &Policy| serde_json::to_string(policy).unwrap();
        let empty = Policy { inbound: Inbound::default(), outbound: Outbound::default(), shadow: None };
        assert_eq!(text(&empty), r#"{"inbound":{"default":{}},"outbound":{"default":{}}}"#);
        let breaker = serde_json::to_string(&BreakerPolicy::default()).unwrap();
        for field in ["consecutiveFailures", "slowCall", "countRejections", "mode"] {
            assert!(!breaker.contains(field), "{breaker}");
        }
        let rate = r#"{"requestsPerSecond":5,"burst":1}"#;
        let parsed: RateLimit = serde_json::from_str(rate).unwrap();
        assert_eq!(
            (serde_json::to_string(&parsed).unwrap().as_str(), parsed.scope),
            (rate, RateScope::Instance)
        );
    }
}

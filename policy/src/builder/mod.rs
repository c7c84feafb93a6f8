//! Policies in code, checked as a whole.

mod command;
mod declared;
mod limits;
mod method;
mod notes;
#[cfg(test)]
mod tests;

use std::fmt;

pub use command::{CircuitBreakerBuilder, CommandBuilder};
pub use limits::{RateLimitBuilder, RetryBuilder};
pub use method::MethodBuilder;

use crate::policy::{MethodMatch, Policy, Shadow};
use declared::Declared;
use notes::Notes;

/// Makes a [`Policy`] in code, where there is no operator to publish one.
///
/// ```
/// use std::time::Duration;
/// use fusebox_policy::{PolicyBuilder, policy::MethodMatch};
///
/// # fn main() -> Result<(), fusebox_policy::InvalidPolicy> {
/// let policy = PolicyBuilder::new()
///     .default_command(|command| command.timeout(Duration::from_secs(1)).circuit_breaker(|breaker| breaker))
///     .command("find_user", |command| {
///         command
///             .timeout(Duration::from_millis(250))
///             .max_concurrent_requests(100)
///             .circuit_breaker(|breaker| breaker.error_percent_threshold(25))
///             .retry(|retry| retry.max_attempts(3))
///     })
///     .method(MethodMatch::grpc("user.v1.UserService", "GetUser"), |method| {
///         method.timeout(Duration::from_millis(500)).rate_limit(|rate| rate.requests_per_second(200))
///     })
///     .build()?;
/// # let _ = policy; Ok(()) }
/// ```
///
/// # Guarantees
/// - [`build`](Self::build) gives a policy that a `ResilientService` could have declared, or everything
///   that is wrong at once.
/// - What is not said is not limited: no timeout, no limits, no breaker, no retries. Only a
///   `circuit_breaker` that is asked for has Hystrix's defaults in what is not said of it.
/// - A command starts from [`default_command`](Self::default_command), a method from
///   [`default_method`](Self::default_method), field by field, whichever was said first.
#[derive(Debug, Default)]
#[must_use = "it does nothing before build"]
pub struct PolicyBuilder<'a> {
    declared: Declared<'a>,
    shadow: Option<Declared<'a>>,
}

impl<'a> PolicyBuilder<'a> {
    /// Nothing is limited.
    pub fn new() -> Self {
        Self::default()
    }

    /// What every command starts from; also the policy of commands that are not named. Said twice, the
    /// later starts from the earlier.
    pub fn default_command(mut self, of: impl Fn(CommandBuilder) -> CommandBuilder + 'a) -> Self {
        self.declared.default_command(of);
        self
    }

    /// The policy of a command, by the name that the code calls it: 1 to 63 letters, digits, `_`, `.` or
    /// `-`. At most 64 commands.
    pub fn command(
        mut self,
        name: impl Into<String>,
        of: impl Fn(CommandBuilder) -> CommandBuilder + 'a,
    ) -> Self {
        self.declared.command(name.into(), of);
        self
    }

    /// What every method starts from; also the policy of requests that match no method. Said twice, the
    /// later starts from the earlier.
    pub fn default_method(mut self, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) -> Self {
        self.declared.default_method(of);
        self
    }

    /// The policy of the requests that match. The first match wins; at most 64 of them.
    pub fn method(mut self, matches: MethodMatch, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) -> Self {
        self.declared.method(matches, of);
        self
    }

    /// A candidate beside the policy, which decides on every call and counts what it would have done, but
    /// never acts. It is the policy with what is said here changed in it.
    pub fn shadow(mut self, of: impl FnOnce(ShadowBuilder<'a>) -> ShadowBuilder<'a>) -> Self {
        self.shadow = Some(of(ShadowBuilder(self.shadow.unwrap_or_default())).0);
        self
    }

    /// The policy, or everything that is wrong with it.
    pub fn build(self) -> Result<Policy, InvalidPolicy> {
        let mut notes = Notes::default();
        let active = [&self.declared];
        let mut policy = Policy {
            inbound: declared::inbound(&active, &mut notes),
            outbound: declared::outbound(&active, &mut notes),
            shadow: None,
        };
        if let Some(shadow) = &self.shadow {
            let layers = [&self.declared, shadow];
            let mut own = Notes::default();
            let candidate = Shadow {
                inbound: shadow.has_methods().then(|| declared::inbound(&layers, &mut own).without_acts()),
                outbound: shadow.has_commands().then(|| declared::outbound(&layers, &mut own).without_acts()),
            };
            // What is wrong with the policy itself is wrong with its copy too; once is enough.
            own.0.retain(|line| !notes.0.contains(line));
            notes.extend("shadow.", own);
            policy.shadow = (candidate != Shadow::default()).then_some(candidate);
        }
        notes.0.extend(policy.violations());
        if notes.0.is_empty() { Ok(policy) } else { Err(InvalidPolicy { violations: notes.0 }) }
    }
}

/// What a candidate changes in the policy; made by [`PolicyBuilder::shadow`]. Of what could only act,
/// fallbacks and retries, it takes nothing.
#[derive(Debug, Default)]
#[must_use]
pub struct ShadowBuilder<'a>(Declared<'a>);

impl<'a> ShadowBuilder<'a> {
    /// Over the policy's own.
    pub fn default_command(mut self, of: impl Fn(CommandBuilder) -> CommandBuilder + 'a) -> Self {
        self.0.default_command(of);
        self
    }

    /// Over the policy's command of that name, or one more.
    pub fn command(
        mut self,
        name: impl Into<String>,
        of: impl Fn(CommandBuilder) -> CommandBuilder + 'a,
    ) -> Self {
        self.0.command(name.into(), of);
        self
    }

    /// Over the policy's own.
    pub fn default_method(mut self, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) -> Self {
        self.0.default_method(of);
        self
    }

    /// Over the policy's method with that match, or one more, before the first that would keep all
    /// requests from it.
    pub fn method(mut self, matches: MethodMatch, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) -> Self {
        self.0.method(matches, of);
        self
    }
}

/// Everything that is wrong with a policy, a line for each: its field and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy {
    violations: Vec<String>,
}

impl InvalidPolicy {
    /// The lines, at least one.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violations.as_slice() {
            [one] => write!(f, "the policy is invalid: {one}"),
            all => {
                write!(f, "the policy is invalid in {} places:", all.len())?;
                all.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
        }
    }
}

impl std::error::Error for InvalidPolicy {}

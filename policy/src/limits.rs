//! The numbers of a policy, each a type that cannot hold one out of range.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;

/// Why a value cannot be part of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, but is {value}")]
pub struct OutOfRange {
    what: &'static str,
    range: &'static str,
    value: String,
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $least:literal..=$most:literal $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "crd", schemars(extend("minimum" = $least, "maximum" = $most)))]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(pub(crate) $inner);

        impl TryFrom<u64> for $name {
            type Error = OutOfRange;

            fn try_from(value: u64) -> Result<Self, OutOfRange> {
                let inner = <$inner>::try_from(value).ok().filter(|value| ($least..=$most).contains(value));
                let range = concat!($least, " to ", $most, $unit);
                inner.map(Self).ok_or(OutOfRange { what: $what, range, value: value.to_string() })
            }
        }

        impl From<$name> for u64 {
            #[allow(clippy::useless_conversion)] // where it holds an u64
            fn from(value: $name) -> u64 {
                value.0.into()
            }
        }
    };
}

bounded! {
    /// 1 ms to 1 h, in milliseconds.
    Millis(u64), "a duration", 1..=3_600_000 " ms"
}
// An hour, in both ways of writing it.
const _: () = assert!(duration::MAX.as_millis() == 3_600_000);

impl Millis {
    /// The value as a duration.
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0)
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
    Limit(u32), "a concurrency limit", 1..=1_000_000 ""
}
bounded! {
    /// 1 to 100 percent.
    Percent(u8), "a percentage", 1..=100 ""
}
bounded! {
    /// How many calls a window must hold before it is judged: 1 to 1,000,000.
    Volume(u32), "a request volume", 1..=1_000_000 ""
}
bounded! {
    /// How many probes a half-open breaker admits, and how many must succeed to close it: 1 to 100.
    Probes(u8), "the number of probes", 1..=100 ""
}

bounded! {
    /// Requests a second: 1 to 1,000,000,000, one each nanosecond.
    Rate(u32), "a rate", 1..=1_000_000_000 " requests a second"
}
bounded! {
    /// Requests that may come at once after a pause: 1 to 1,000,000.
    Burst(u32), "a burst", 1..=1_000_000 ""
}
bounded! {
    /// How often a call is tried, the first time included: 2 to 10.
    Attempts(u8), "the number of attempts", 2..=10 ""
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
impl Rate {
    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}
impl Burst {
    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}
impl Attempts {
    /// The value.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How many requests a second pass: a bucket of `burst` tokens, refilled at the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Over time.
    pub requests_per_second: Rate,
    /// At once, after a pause.
    pub burst: Burst,
    /// Whose requests are counted together.
    #[serde(default, skip_serializing_if = "RateScope::is_instance")]
    #[cfg_attr(feature = "crd", schemars(extend("default" = RateScope::Instance)))]
    pub scope: RateScope,
}

/// Whose requests a rate limit counts together: those of one Instance, the default, or those of the Service,
/// of which each instance admits its share by the number of ready instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum RateScope {
    /// Those of one instance.
    #[default]
    Instance,
    /// Those of the service: each instance admits the rate divided by the number of ready instances.
    Service,
}

impl RateScope {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    const fn is_instance(&self) -> bool {
        matches!(self, Self::Instance)
    }
}

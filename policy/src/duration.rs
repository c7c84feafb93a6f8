//! Durations as the Gateway API writes them: `1h30m`, `500ms`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The pattern of a duration: one to four numbers of at most five digits, each with a unit
/// (Gateway API, GEP-2257). No sign, no fraction, nothing below a millisecond.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// The longest duration a policy may hold. Anything above it is a mistake of units.
pub const MAX: Duration = Duration::from_hours(1);

/// A duration as a person wrote it; [`parse`](Self::parse) gives its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "crd",
    schemars(
        extend("maxLength" = 32),
        extend("pattern" = PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "duration(self) >= duration('1ms') && duration(self) <= duration('1h')",
            "message": "must be between 1ms and 1h, like 500ms, 2s or 1m30s"
        }])
    )
)]
#[serde(transparent)]
pub struct GoDuration(pub String);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not match [`PATTERN`].
    #[error("{0:?} is not a duration: write a number with a unit, like 500ms, 2s or 1m30s")]
    Syntax(String),
    /// The value is zero or above [`MAX`].
    #[error("{0} is out of range: a duration is between 1ms and 1h")]
    Range(String),
}

impl GoDuration {
    /// The value, at least 1 ms and at most [`MAX`].
    pub fn parse(&self) -> Result<Duration, DurationError> {
        let text = self.0.as_str();
        let syntax = || DurationError::Syntax(text.to_owned());
        let (mut rest, mut total, mut parts) = (text, Duration::ZERO, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = match digits {
                1..=5 => rest[..digits].parse().map_err(|_| syntax())?,
                _ => return Err(syntax()),
            };
            rest = &rest[digits..];
            // "ms" before "m": the longest unit wins.
            let (unit, length) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .ok_or_else(syntax)?;
            rest = &rest[unit.len()..];
            total += Duration::from_millis(number * length);
            parts += 1;
        }
        match parts {
            1..=4 if total.is_zero() || total > MAX => Err(DurationError::Range(text.to_owned())),
            1..=4 => Ok(total),
            _ => Err(syntax()),
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for GoDuration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_gateway_api_form() {
        for (text, millis) in
            [("500ms", 500), ("1s", 1000), ("1m30s", 90_000), ("1s500ms", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(GoDuration::from(text).parse(), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_the_pattern_refuses() {
        for text in ["", "1", "s", "-1s", "1.5s", "1us", "100000ms", "1s 2s", "1s1s1s1s1s", "1msx"] {
            assert!(matches!(GoDuration::from(text).parse(), Err(DurationError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn refuses_zero_and_more_than_an_hour() {
        for text in ["0s", "61m", "2h"] {
            assert!(matches!(GoDuration::from(text).parse(), Err(DurationError::Range(_))), "{text}");
        }
    }
}

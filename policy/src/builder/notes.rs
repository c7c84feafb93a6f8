//! What is found wrong, until all is known.

use std::fmt::Display;
use std::time::Duration;

use crate::policy::{Millis, OutOfRange};

/// Lines, each naming its field.
#[derive(Debug, Default)]
pub(super) struct Notes(pub(super) Vec<String>);

impl Notes {
    /// The value, or a line on what is wrong with `field`.
    pub(super) fn note<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.0.push(format!("{field}: {error}"))).ok()
    }

    pub(super) fn number<T: TryFrom<u64, Error = OutOfRange>>(
        &mut self,
        field: &str,
        value: Option<u64>,
    ) -> Option<T> {
        self.note(field, T::try_from(value?))
    }

    pub(super) fn millis(&mut self, field: &str, value: Option<Duration>) -> Option<Millis> {
        let value = value?;
        let whole = value.subsec_nanos() % 1_000_000 == 0;
        let checked = if whole {
            Millis::try_from(value).map_err(|error| error.to_string())
        } else {
            Err(format!("a duration must be whole milliseconds, but is {value:?}"))
        };
        self.note(field, checked)
    }

    /// Takes all of `other`, each line behind `at`.
    pub(super) fn extend(&mut self, at: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|line| format!("{at}{line}")));
    }
}

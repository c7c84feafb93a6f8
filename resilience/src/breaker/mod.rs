//! The circuit breaker.
//!
//! [`state`] and [`reason`] decide, [`window`] and [`streak`] count, [`gate`] shares all of it between
//! threads, [`felt()`] says what callers feel of it. None of them reads a clock: the time of now is an
//! argument. What counts as a failure is decided in [`crate::classify`].

mod felt;
pub(crate) mod gate;
pub(crate) mod reason;
mod slices;
mod stamp;
pub(crate) mod state;
mod streak;
pub(crate) mod window;

#[cfg(test)]
mod oracle;

pub(crate) use felt::felt;
pub(crate) use gate::{Change, Gate};
pub(crate) use reason::Reason;
pub(crate) use state::{Admission, State, Verdict};
pub(crate) use window::Window;

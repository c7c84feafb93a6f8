//! The circuit breaker.
//!
//! [`state`] decides, [`window`] counts, [`gate`] shares both between threads, [`felt()`] says what
//! callers feel of it. None of them reads a
//! clock: the time of now is an argument. What counts as a failure is decided in
//! [`crate::classify`].

mod felt;
pub(crate) mod gate;
pub(crate) mod state;
pub(crate) mod window;

#[cfg(test)]
mod oracle;

pub(crate) use felt::felt;
pub(crate) use gate::Gate;
pub(crate) use state::{Admission, Verdict};
pub(crate) use window::Window;

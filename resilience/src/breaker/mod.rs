//! The circuit breaker.
//!
//! [`state`] decides, [`window`] counts, [`gate`] shares both between threads. None of them reads a
//! clock: the time of now is an argument. What counts as a failure is decided in
//! [`crate::classify`].

pub(crate) mod gate;
pub(crate) mod state;
pub(crate) mod window;

#[cfg(test)]
mod oracle;

pub(crate) use gate::Gate;
pub(crate) use state::{Admission, Verdict};
pub(crate) use window::Window;

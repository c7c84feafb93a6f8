//! Outbound calls under policy: timeout, concurrency limit, circuit breaker, fallback.

mod call;
mod error;
mod fallback;
pub(crate) mod registry;
pub(crate) mod state;

use std::sync::Arc;

pub use call::Call;
pub use error::CommandError;
pub use fallback::OrFallback;

use crate::classify::{ByError, Class};
use state::CommandState;

/// The policy and state of one kind of outbound call, by its name.
///
/// A handle: clones share one breaker and one limit, with each other and with every command of the
/// same name. It follows the policy; it may be kept for the life of the process.
#[derive(Clone, Debug)]
pub struct Command {
    state: Arc<CommandState>,
}

impl Command {
    pub(crate) const fn new(state: Arc<CommandState>) -> Self {
        Self { state }
    }

    /// The name it was asked for; `(other)` if there were too many names.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Calls `f` under the policy, once, if breaker and limit admit it. Nothing happens before the
    /// returned future is polled: admission, and the deadline, start with its first poll.
    ///
    /// The deadline is the policy's timeout or that of the served request or enclosing call this is
    /// part of, whichever is earlier. At the deadline the future of `f` is dropped: work that it
    /// has spawned elsewhere is not stopped by that. An error that `f` gives at the deadline or after
    /// is a timeout too; an answer is still an answer.
    ///
    /// Which errors count as failures is up to [`Classify`](crate::Classify).
    pub fn call<F, Fut>(&self, f: F) -> Call<F, Fut, ByError>
    where
        F: FnOnce() -> Fut,
        Fut: Future,
    {
        Call::new(Arc::clone(&self.state), f, ByError)
    }

    /// Like [`call`](Self::call), for an error type that is not [`Classify`](crate::Classify).
    pub fn call_classified<F, Fut, T, E, C>(&self, f: F, class: C) -> Call<F, Fut, C>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(&E) -> Class,
    {
        Call::new(Arc::clone(&self.state), f, class)
    }
}

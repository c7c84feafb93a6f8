//! Outbound calls under policy: timeout, limits, circuit breaker, retries, fallback.

mod call;
mod error;
mod fallback;
mod idempotent;
mod layer;
pub(crate) mod registry;
mod retry;
mod running;
pub(crate) mod state;

use std::fmt;

pub use call::Call;
pub use error::CommandError;
pub(crate) use error::whole_seconds;
pub use fallback::{Attempt, OrFallback, OrFallbackAsync};
pub use idempotent::IdempotentCall;
pub use layer::{CommandFuture, CommandLayer, CommandService};

use crate::classify::{ByError, Class};
use crate::layer::{HttpLayer, Side};
use state::CommandState;

/// The policy and state of one kind of outbound call, by its name.
///
/// A handle: copies share one breaker and one limit, with each other and with every command of the
/// same name. It follows the policy; it may be kept for the life of the process.
#[derive(Clone, Copy)]
pub struct Command {
    state: &'static CommandState,
}

impl Command {
    pub(crate) const fn new(state: &'static CommandState) -> Self {
        Self { state }
    }

    /// The name it was asked for; `(other)` if there were too many names.
    pub fn name(&self) -> &str {
        &self.state.circuit.name
    }

    /// Calls `f` under the policy, once, if breaker and limits admit it. Nothing happens before the
    /// returned future is polled: admission, and the deadline, start with its first poll.
    ///
    /// The deadline is the policy's timeout or that of the served request or enclosing call this is
    /// part of, whichever is earlier. At the deadline the future of `f` is dropped: work that it
    /// has spawned elsewhere is not stopped by that. An error that `f` gives at the deadline or after
    /// is a timeout too; an answer is still an answer.
    ///
    /// Which errors count as failures is up to [`Classify`](crate::Classify) and the policy's lists.
    ///
    /// What is called must not borrow what the future outlives:
    ///
    /// ```compile_fail
    /// # async fn f(find_user: fusebox::Command) {
    /// let call = {
    ///     let name = String::from("Ada");
    ///     find_user.call(|| async { Ok::<_, std::io::Error>(name.len()) }) // `name` does not live so long
    /// };
    /// call.await.ok();
    /// # }
    /// ```
    #[inline]
    pub fn call<F, Fut>(&self, f: F) -> Call<F, Fut, ByError>
    where
        F: FnOnce() -> Fut,
        Fut: Future,
    {
        Call::new(*self, f, ByError)
    }

    /// Like [`call`](Self::call), for an error type that is not [`Classify`](crate::Classify).
    #[inline]
    pub fn call_classified<F, Fut, T, E, C>(&self, f: F, class: C) -> Call<F, Fut, C>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(&E) -> Class,
    {
        Call::new(*self, f, class)
    }

    /// Like [`call`](Self::call), for what does no harm if it is done twice: where the policy has a
    /// `retry`, `f` is called again after a failure or a timeout, each time as an attempt of its own that
    /// breaker and limits have to admit and that counts by itself. All attempts together have the
    /// command's timeout. An error of class [`Class::Client`] is not asked twice; an attempt that breaker or
    /// limits refuse is the last, and the answer is then the error of the one before.
    ///
    /// Retries are a part of all calls over ten seconds, the budget, and ten more; between two attempts
    /// there is a random pause of up to 25 ms, doubled each time, at most 250 ms.
    ///
    /// What can be called once only is no such thing:
    ///
    /// ```compile_fail
    /// # async fn f(find_user: fusebox::Command) {
    /// let name = String::from("Ada");
    /// find_user.call_idempotent(move || async { Ok::<_, std::io::Error>(drop(name)) }).await.ok();
    /// # }
    /// ```
    pub fn call_idempotent<F, Fut, T, E>(&self, f: F) -> IdempotentCall<F, Fut, ByError, E>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        IdempotentCall::new(*self, f, ByError)
    }

    /// Like [`call_idempotent`](Self::call_idempotent), for an error type that is not
    /// [`Classify`](crate::Classify).
    pub fn call_idempotent_classified<F, Fut, T, E, C>(&self, f: F, class: C) -> IdempotentCall<F, Fut, C, E>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(&E) -> Class,
    {
        IdempotentCall::new(*self, f, class)
    }

    /// The command as a layer around any service whose error is [`Classify`](crate::Classify).
    pub const fn layer(&self) -> CommandLayer {
        CommandLayer::new(*self, ByError)
    }

    /// The command as a layer around any service, with a classifier for its errors.
    pub const fn layer_classified<C>(&self, classifier: C) -> CommandLayer<C> {
        CommandLayer::new(*self, classifier)
    }

    /// The command as a layer around a client of HTTP or gRPC, like tonic's `Channel`. It reads the
    /// outcome from the response, its trailers included, tells the callee the deadline by `grpc-timeout`,
    /// and answers itself where it refuses or times out, in the protocol of the request: a generated gRPC
    /// client sees a `Status`, with its reason in the metadata `fusebox-reason`.
    pub const fn http_layer(&self) -> HttpLayer {
        HttpLayer::new(Side::Client(self.state))
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.name()).finish()
    }
}

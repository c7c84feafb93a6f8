//! A call that may be made more than once.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::fallback::{Attempt, OrFallback, OrFallbackAsync};
use super::running::{Classified, Running};
use super::state::CommandState;
use super::{Command, CommandError};
use crate::classify::{Class, Classifier};
use crate::clock::{Now, exact};
use crate::fuse::Opening;

pin_project! {
    /// A call that is tried again where the policy says so; made by
    /// [`Command::call_idempotent`](super::Command::call_idempotent). Dropped at any point, it cancels
    /// the work and gives back its permit and probe slot. Polled after its end it stays pending.
    #[must_use = "nothing is called before it is awaited"]
    pub struct IdempotentCall<F, Fut, C, E> {
        command: Command,
        classifier: C,
        start: Option<F>,
        // How often it was tried, the present time included.
        attempts: u8,
        // The deadline of all attempts together.
        due: Now,
        // Of the policy that it began under.
        fallback: bool,
        // Why the last attempt gave no answer.
        failed: Option<(CommandError<E>, Class)>,
        #[pin]
        pause: Option<Sleep>,
        #[pin]
        running: Option<Running<Fut>>,
    }
}

impl<F, Fut, C, E> IdempotentCall<F, Fut, C, E> {
    pub(super) const fn new(command: Command, start: F, classifier: C) -> Self {
        Self {
            command,
            classifier,
            start: Some(start),
            attempts: 0,
            due: Now::NEVER,
            fallback: false,
            failed: None,
            pause: None,
            running: None,
        }
    }
}

impl<F, Fut, C, T, E> IdempotentCall<F, Fut, C, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    /// As [`Call::or_fallback`](super::Call::or_fallback), once no further attempt is made.
    pub fn or_fallback<G>(self, f: G) -> OrFallback<Self, G>
    where
        G: FnOnce(&CommandError<E>) -> T,
    {
        OrFallback::new(self, f)
    }

    /// As [`Call::or_fallback_async`](super::Call::or_fallback_async), once no further attempt is made.
    pub fn or_fallback_async<G, Fall>(self, f: G) -> OrFallbackAsync<Self, G, Fall>
    where
        G: FnOnce(CommandError<E>) -> Fall,
        Fall: Future<Output = Result<T, CommandError<E>>>,
    {
        OrFallbackAsync::new(self, f)
    }
}

impl<F, Fut, C, T, E> Attempt for IdempotentCall<F, Fut, C, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Answer = T;
    type Error = E;

    fn command(&self) -> &'static CommandState {
        self.command.state
    }

    fn may_fall_back(&self) -> bool {
        self.fallback
    }

    fn poll_classified(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Classified<T, E>> {
        let mut this = self.project();
        let command = this.command.state;
        loop {
            if let Some(pause) = this.pause.as_mut().as_pin_mut() {
                if pause.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.pause.set(None);
            }
            if this.running.is_none() {
                let Some(start) = this.start.as_mut() else { return Poll::Pending };
                if *this.attempts == 0 {
                    let Opening { timeout_ms, fallback } = command.opening();
                    *this.fallback = fallback;
                    if timeout_ms > 0 {
                        *this.due = exact().plus(u64::from(timeout_ms) * 1_000_000);
                    }
                }
                *this.attempts += 1;
                match command.begin_attempt(*this.attempts, *this.due) {
                    Ok(flight) => this.running.set(Some(Running::start(flight, start))),
                    // What was refused is only that it is tried again: the answer is why it had to be.
                    Err(refused) => {
                        *this.start = None;
                        let failed = this.failed.take();
                        return Poll::Ready(Err(failed.unwrap_or((refused.into(), Class::Failure))));
                    }
                }
            }
            let Some(running) = this.running.as_mut().as_pin_mut() else { return Poll::Pending };
            let Poll::Ready(answer) = running.poll(cx, command, this.classifier) else {
                return Poll::Pending;
            };
            this.running.set(None);
            let again = match &answer {
                Err((_, Class::Failure)) => command.retry_at(*this.attempts, *this.due),
                _ => None,
            };
            match (again, answer) {
                (Some(again), Err(failed)) => {
                    *this.failed = Some(failed);
                    this.pause.set(again.instant().map(sleep_until));
                }
                (_, answer) => {
                    *this.start = None;
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

impl<F, Fut, C, T, E> Future for IdempotentCall<F, Fut, C, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Output = Result<T, CommandError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_classified(cx).map(|answer| answer.map_err(|(error, _)| error))
    }
}

impl<F, Fut, C, E> std::fmt::Debug for IdempotentCall<F, Fut, C, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("IdempotentCall");
        debug.field("command", &self.command.name()).field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

//! A command around a tower service.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::running::Running;
use super::state::Refused;
use super::{Command, CommandError};
use crate::classify::{ByError, Classifier};

/// Puts every call of a service under a command's policy; made by
/// [`Command::layer`](super::Command::layer).
///
/// For any service, whatever its requests and responses are: an error of the service is classified, a
/// response is a success. Around a client of HTTP or gRPC, whose errors are in its responses, put
/// [`Command::http_layer`](super::Command::http_layer).
#[derive(Clone, Copy, Debug)]
pub struct CommandLayer<C = ByError> {
    command: Command,
    classifier: C,
}

/// A service under a command's policy; see [`CommandLayer`].
///
/// It is ready when its inner service is: a call that policy refuses has its answer at once, and leaves
/// the inner service ready.
#[derive(Clone, Copy, Debug)]
pub struct CommandService<S, C = ByError> {
    inner: S,
    command: Command,
    classifier: C,
}

impl<C> CommandLayer<C> {
    pub(super) const fn new(command: Command, classifier: C) -> Self {
        Self { command, classifier }
    }
}

impl<S, C: Clone> Layer<S> for CommandLayer<C> {
    type Service = CommandService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CommandService { inner, command: self.command, classifier: self.classifier.clone() }
    }
}

impl<S, Request, C> Service<Request> for CommandService<S, C>
where
    S: Service<Request>,
    C: Classifier<S::Error> + Clone,
{
    type Response = S::Response;
    type Error = CommandError<S::Error>;
    type Future = CommandFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(CommandError::Failed)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        let command = self.command;
        let state = match command.state.begin(command.state.opening()) {
            Ok(flight) => State::Running { running: Running::start(flight, || self.inner.call(request)) },
            Err(refused) => State::Refused { refused: Some(refused) },
        };
        CommandFuture { command, classifier: self.classifier.clone(), state }
    }
}

pin_project! {
    /// The response of a [`CommandService`]. Dropped at any point, it cancels the work and gives back
    /// its permit and probe slot. Polled after its end it stays pending.
    pub struct CommandFuture<Fut, C> {
        command: Command,
        classifier: C,
        #[pin]
        state: State<Fut>,
    }
}

pin_project! {
    #[project = StateOf]
    enum State<Fut> {
        Running { #[pin] running: Running<Fut> },
        Refused { refused: Option<Refused> },
    }
}

impl<Fut, T, E, C> Future for CommandFuture<Fut, C>
where
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Output = Result<T, CommandError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateOf::Running { running } => running
                .poll(cx, this.command.state, this.classifier)
                .map(|answer| answer.map_err(|(error, _)| error)),
            StateOf::Refused { refused } => {
                refused.take().map_or(Poll::Pending, |refused| Poll::Ready(Err(refused.into())))
            }
        }
    }
}

impl<Fut, C> std::fmt::Debug for CommandFuture<Fut, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandFuture").field("command", &self.command.name()).finish_non_exhaustive()
    }
}

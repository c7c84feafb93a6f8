//! One call: to whom, how often, and until when.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::body::Body;

use super::answers;
use super::balance::Balance;
use super::choice::Unpicked;
use super::flight::{Flight, Landing};
use super::link::{Broken, Served, Stamp};
use super::member::Member;
use super::outgoing::Outgoing;
use super::{BoxError, Channel};
use crate::clock::{Now, exact};
use crate::deadline;
use crate::discovery::known::Empty;
use crate::layer::answer::Answer;
use crate::layer::protocol::{Protocol, Said};
use crate::outcome::Outcome;

/// How long a call waits for the first list, right after the start.
const FIRST_LIST: Duration = Duration::from_secs(1);
/// To how many further endpoints a call goes that could not connect: no server has seen it.
const MOST_FAILOVERS: u8 = 2;

/// Until when a call must have its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    due: Now,
    hurried: bool,
}

impl Times {
    /// Of a call that begins now: the earliest of the command's timeout, the deadline of what it is part of,
    /// and the `grpc-timeout` it came with.
    pub(super) fn of(balance: &Balance, protocol: Protocol, headers: &HeaderMap) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let asked = protocol.is_grpc().then(|| deadline::grpc_timeout(headers)).flatten();
        let timeout = balance.command.circuit.fuse.timeout_ms();
        if asked.is_none() && timeout.is_none() {
            return Self { due: deadline::current(), hurried: false };
        }
        let now = exact();
        let asked = asked.map_or(Now::NEVER, |timeout| now.plus(nanos(timeout)));
        let enclosing = deadline::current().min(asked);
        let timeout = timeout.map(|millis| u64::from(millis) * 1_000_000);
        let due = timeout.map_or(enclosing, |timeout| now.plus(timeout).min(enclosing));
        let hurried = timeout.is_some_and(|timeout| enclosing.nanos_since(now) < timeout / 2);
        Self { due, hurried }
    }
}

/// How an attempt ended.
enum Attempt {
    /// With an answer for the caller, good or its own fault.
    Answered(Response<Body>),
    /// No connection: nobody has seen the request.
    Unsent(Arc<Member>, BoxError),
    Failed(Arc<Member>, Box<Failure>),
}

/// What the caller gets if no further attempt is made.
enum Failure {
    Response(Response<Body>),
    Error(BoxError),
    Timeout,
}

/// Makes one call. The channel lives until it has its answer.
pub(super) fn call(
    channel: Channel,
    protocol: Protocol,
    request: Request<Body>,
    times: Times,
) -> impl Future<Output = Result<Response<Body>, BoxError>> {
    let balance = &channel.0.balance;
    let (request, may_repeat) = balance.options.is_idempotent(request);
    let comes_back = balance.connect.gives_back() && !may_repeat;
    let mut outgoing = if comes_back { Outgoing::once(request) } else { Outgoing::kept(request, may_repeat) };
    // A block: what it captures it uses in place, where a function would hold all of it twice.
    async move {
        let balance = &channel.0.balance;
        let mut tried = Vec::<Arc<Member>>::new();
        let (mut attempts, mut failovers) = (0_u8, 0_u8);
        let (mut last, mut only_others) = (None::<Box<Failure>>, false);
        if balance.is_unheard() {
            first_list(balance, times.due).await;
        }
        let mut now = exact();
        balance.command.retries.attempted(1, now.tick());
        loop {
            let flight = match balance.pick(&tried, only_others, now) {
                Ok(picked) => {
                    let due = attempt_due(balance, times.due, may_repeat, now);
                    Flight::start(Arc::clone(balance), picked, now, due, times.hurried)
                }
                Err(unpicked) => {
                    // There is nobody else: who could not be reached may be, a little later.
                    attempts = attempts.saturating_add(1);
                    let again = (only_others && may_repeat).then(|| repeat_at(balance, attempts, times.due));
                    if let Some(at) = again.flatten() {
                        drop(unpicked);
                        Box::pin(sleep_until(at)).await;
                        (now, only_others, failovers) = (exact(), false, 0);
                        continue;
                    }
                    // The answer of the attempt before says more.
                    let last = last.map_or_else(|| none(protocol, unpicked), |last| *last);
                    return finish(protocol, last);
                }
            };
            let answer = attempt(&flight, protocol, &mut outgoing).await;
            let (member, failure) = match settle(flight, protocol, answer) {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Unsent(member, error) if failovers < MOST_FAILOVERS => {
                    (failovers, only_others) = (failovers + 1, true);
                    (member, Box::new(Failure::Error(error)))
                }
                Attempt::Unsent(_, error) => return Err(error),
                Attempt::Failed(member, failure) => {
                    (attempts, only_others) = (attempts.saturating_add(1), false);
                    let again = may_repeat.then(|| repeat_at(balance, attempts, times.due)).flatten();
                    let Some(at) = again else { return finish(protocol, *failure) };
                    Box::pin(sleep_until(at)).await;
                    (member, failure)
                }
            };
            tried.push(member);
            let again = outgoing.again(times.due).await;
            now = exact();
            if !again || times.due <= now {
                return finish(protocol, *failure);
            }
            last = Some(failure);
        }
    }
}

/// Waits until something was heard of the service, for a while.
async fn first_list(balance: &Balance, due: Now) {
    let mut heard = balance.heard.subscribe();
    let until = exact().plus(u64::try_from(FIRST_LIST.as_nanos()).unwrap_or(u64::MAX)).min(due);
    if let Some(until) = until.instant() {
        // Nothing heard is an answer as well.
        let _ = timeout_at(until, heard.wait_for(|heard| *heard)).await;
    }
}

fn attempt_due(balance: &Balance, due: Now, may_repeat: bool, now: Now) -> Now {
    if !may_repeat {
        return due;
    }
    let per_try = balance.command.policy().retry.and_then(|retry| retry.per_try_timeout_ms);
    per_try.map_or(due, |millis| due.min(now.plus(u64::from(millis) * 1_000_000)))
}

/// When the policy has one tried again that may be.
fn repeat_at(balance: &Balance, attempts: u8, due: Now) -> Option<Instant> {
    balance.command.retry_at(attempts, due)?.instant()
}

fn none(protocol: Protocol, unpicked: Unpicked) -> Failure {
    if let Unpicked::Empty(Empty::Unheard(service)) = &unpicked {
        tracing::debug!(%service, "a call came before the first list");
    }
    Failure::Response(answers::unpicked(protocol, unpicked))
}

fn finish(protocol: Protocol, failure: Failure) -> Result<Response<Body>, BoxError> {
    match failure {
        Failure::Response(response) => Ok(response),
        Failure::Error(error) => Err(error),
        Failure::Timeout => Ok(answers::refused(protocol, Answer::Timeout)),
    }
}

/// What an attempt brought, within its time.
async fn attempt(
    flight: &Flight,
    protocol: Protocol,
    outgoing: &mut Outgoing,
) -> Result<Result<Response<Served>, Broken>, Elapsed> {
    let due = flight.due();
    let mut work = pin!(outgoing.send(&flight.member.core.link, Stamp { protocol, due }));
    match due.instant() {
        Some(due) => timeout_at(due, work).await,
        None => Ok(work.as_mut().await),
    }
}

/// How an attempt ended that brought this.
fn settle(
    mut flight: Flight,
    protocol: Protocol,
    mut answer: Result<Result<Response<Served>, Broken>, Elapsed>,
) -> Attempt {
    let said = match &mut answer {
        Ok(Ok(response)) => {
            let said = protocol.head(response.status(), response.headers());
            if said.is_error() {
                answers::plain(protocol, response.headers_mut());
                protocol.head(response.status(), response.headers())
            } else {
                said
            }
        }
        _ => Said::Unknown,
    };
    match answer {
        // What fails from the deadline on is the deadline's doing.
        _ if said.is_error() && flight.is_overdue() => {
            flight.end(Outcome::Timeout);
            Attempt::Failed(flight.member(), Box::new(Failure::Timeout))
        }
        Err(_) => {
            flight.end(Outcome::Timeout);
            Attempt::Failed(flight.member(), Box::new(Failure::Timeout))
        }
        Ok(Err(broken)) => {
            flight.end(Outcome::Failure);
            match broken {
                Broken::Unsent(error) => Attempt::Unsent(flight.member(), error),
                Broken::Sent(error) => Attempt::Failed(flight.member(), Box::new(Failure::Error(error))),
            }
        }
        Ok(Ok(response)) => {
            let failed =
                said.is_error() && matches!(flight.outcome(said), Outcome::Failure | Outcome::Timeout);
            let member = failed.then(|| flight.member());
            let response = response.map(|body| Body::new(Landing::new(flight, body, protocol, said)));
            match member {
                Some(member) => Attempt::Failed(member, Box::new(Failure::Response(response))),
                None => Attempt::Answered(response),
            }
        }
    }
}

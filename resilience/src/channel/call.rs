//! One call: to whom, how often, and until when.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::request::Parts;
use tokio::time::{sleep_until, timeout, timeout_at};
use tonic::body::Body;

use super::answers;
use super::balance::Balance;
use super::choice::Unpicked;
use super::flight::{Flight, Landing};
use super::member::Member;
use super::replay::Parcel;
use super::{BoxError, Channel};
use crate::clock::{Now, exact};
use crate::deadline::{self, Due};
use crate::discovery::known::Empty;
use crate::layer::answer::Answer;
use crate::layer::protocol::{Protocol, Said};
use crate::outcome::Outcome;

/// How long a call waits for the first list, right after the start.
const FIRST_LIST: Duration = Duration::from_secs(1);
/// To how many further endpoints a call goes that could not connect: no server has seen it.
const MOST_FAILOVERS: u8 = 2;
/// How long a body may take to come back from an attempt that is over.
const COMES_BACK: Duration = Duration::from_millis(100);

/// Until when a call must have its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    due: Now,
    hurried: bool,
}

impl Times {
    /// Of a call that begins now: the earliest of the command's timeout, the deadline of what it is part of,
    /// and the `grpc-timeout` it came with.
    pub(super) fn of(balance: &Balance, protocol: Protocol, parts: &Parts) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let asked = protocol.is_grpc().then(|| deadline::grpc_timeout(&parts.headers)).flatten();
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
    Unsent(BoxError),
    Failed(Failure),
}

/// What the caller gets if no further attempt is made.
enum Failure {
    Response(Response<Body>),
    Error(BoxError),
    Timeout,
}

/// Makes one call. The channel lives until it has its answer.
pub(super) async fn call(
    channel: Channel,
    protocol: Protocol,
    mut parts: Parts,
    body: Body,
    times: Times,
) -> Result<Response<Body>, BoxError> {
    let balance = &channel.0.balance;
    let may_repeat = balance.options.is_idempotent(&parts);
    let (mut parcel, mut tried) = (Parcel::new(body, may_repeat), Vec::<Arc<Member>>::new());
    let (mut attempts, mut failovers) = (0_u8, 0_u8);
    let (mut last, mut only_others) = (None, false);
    balance.command.retries.attempted(1, balance.clock.now().tick());
    loop {
        let picked = match balance.pick(&tried, only_others) {
            Err(Unpicked::Empty(Empty::Unheard(_))) if tried.is_empty() => {
                first_list(balance, times.due).await;
                balance.pick(&tried, only_others)
            }
            picked => picked,
        };
        let picked = match picked {
            Ok(picked) => picked,
            // The answer of the attempt before says more.
            Err(unpicked) => return finish(protocol, last.unwrap_or_else(|| none(protocol, unpicked))),
        };
        let member = Arc::clone(&picked.member);
        let due = attempt_due(balance, times.due, may_repeat);
        let flight = Flight::start(Arc::clone(balance), picked, due, times.hurried);
        let (lent, comes_back) = parcel.lend();
        let failure = match attempt(flight, protocol, &mut parts, lent, due).await {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Unsent(error) if failovers < MOST_FAILOVERS => {
                (failovers, only_others) = (failovers + 1, true);
                Failure::Error(error)
            }
            Attempt::Unsent(error) => return Err(error),
            Attempt::Failed(failure) => {
                (attempts, only_others) = (attempts.saturating_add(1), false);
                let again = may_repeat.then(|| balance.command.retry_at(attempts, times.due)).flatten();
                let Some(instant) = again.and_then(Now::instant) else { return finish(protocol, failure) };
                sleep_until(instant).await;
                failure
            }
        };
        tried.push(member);
        match timeout(COMES_BACK, comes_back).await {
            Ok(Ok(back)) if times.due > exact() => parcel = back,
            _ => return finish(protocol, failure),
        }
        last = Some(failure);
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

fn attempt_due(balance: &Balance, due: Now, may_repeat: bool) -> Now {
    if !may_repeat {
        return due;
    }
    let per_try = balance.command.policy().retry.and_then(|retry| retry.per_try_timeout_ms);
    per_try.map_or(due, |millis| due.min(exact().plus(u64::from(millis) * 1_000_000)))
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

async fn attempt(mut flight: Flight, protocol: Protocol, parts: &mut Parts, body: Body, due: Now) -> Attempt {
    let work = flight.member.core.link.clone().send(parts, body, |request| {
        if protocol.is_grpc() {
            deadline::within(Due::at(due), || deadline::set_grpc_timeout(request.headers_mut()));
        }
    });
    let mut answer = match due.instant() {
        Some(due) => timeout_at(due, work).await,
        None => Ok(work.await),
    };
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
            Attempt::Failed(Failure::Timeout)
        }
        Err(_) => {
            flight.end(Outcome::Timeout);
            Attempt::Failed(Failure::Timeout)
        }
        Ok(Err(error)) => {
            flight.end(Outcome::Failure);
            if is_connect(&*error) { Attempt::Unsent(error) } else { Attempt::Failed(Failure::Error(error)) }
        }
        Ok(Ok(response)) => {
            let failed =
                said.is_error() && matches!(flight.outcome(said), Outcome::Failure | Outcome::Timeout);
            let response = response.map(|body| Body::new(Landing::new(flight, body, protocol, said)));
            if failed { Attempt::Failed(Failure::Response(response)) } else { Attempt::Answered(response) }
        }
    }
}

/// Whether an error says that there was no connection to send the request on.
fn is_connect(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(<dyn Error>::is::<tonic::ConnectError>)
}

//! One attempt at one endpoint: whatever becomes of it, it is settled exactly once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;

use super::answers;
use super::balance::Balance;
use super::choice::Picked;
use super::link::Served;
use super::member::Member;
use crate::clock::{Now, exact};
use crate::fuse::{Settled, Ticket};
use crate::layer::protocol::{Protocol, Said};
use crate::outcome::Outcome;
use crate::slot::Slot;

/// An admitted attempt. Dropped without an answer it counts as cancelled, or at or after 95 % of its deadline as
/// a timeout: the caller's own timer may be a little ahead of ours.
pub(super) struct Flight {
    balance: Arc<Balance>,
    pub(super) member: Arc<Member>,
    ticket: Ticket,
    started: Now,
    due: Now,
    /// The deadline of what it is part of left it less than half of the command's timeout.
    hurried: bool,
    /// Nanoseconds to the head of its answer.
    took: Option<u64>,
    settled: bool,
}

impl Flight {
    pub(super) fn start(balance: Arc<Balance>, picked: Picked, now: Now, due: Now, hurried: bool) -> Self {
        let Picked { member, mut ticket } = picked;
        // It counts as in flight, limit or not: that is its endpoint's load.
        member.core.fuse.wait(&mut ticket);
        Self { balance, member, ticket, started: now, due, hurried, took: None, settled: false }
    }

    pub(super) const fn due(&self) -> Now {
        self.due
    }

    /// Whom it goes to.
    pub(super) fn member(&self) -> Arc<Member> {
        Arc::clone(&self.member)
    }

    /// Whether it should have ended by now, or in the next two milliseconds: tonic's own timer for the
    /// `grpc-timeout` that we send is rounded otherwise. Of a short time it is the last tenth.
    pub(super) fn is_overdue(&self) -> bool {
        let tenth = self.due.nanos_since(self.started) / 10;
        self.due != Now::NEVER && self.due <= exact().plus(tenth.min(2 * self.balance.clock.slack()))
    }

    /// How a response is counted that says this and nothing more.
    pub(super) fn outcome(&self, said: Said) -> Outcome {
        match said {
            Said::Success => Outcome::Success,
            said => said.outcome(Some(&self.balance.command.policy().errors)),
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let now = exact();
        let core = &self.member.core;
        let ran = now.nanos_since(self.started);
        match (outcome, self.took) {
            (Outcome::Failure | Outcome::Timeout, _) => core.latency.fail(ran, now.tick()),
            (Outcome::Success | Outcome::ClientError, None) => core.latency.record(ran, now.tick()),
            _ => {}
        }
        if outcome == Outcome::Success && core.fuse.succeed(self.ticket, now, Slot::mine()) {
            return;
        }
        let settled = self.settled(outcome, self.took.unwrap_or(ran));
        if core.fuse.settle(self.ticket, settled, now).is_some() {
            self.balance.review();
        }
    }

    const fn settled(&self, outcome: Outcome, took: u64) -> Settled {
        Settled { verdict: outcome.verdict(self.hurried), took }
    }

    /// The head of its answer is there; what follows may take as long as it likes. A probe is decided by it.
    fn answered(&mut self, outcome: Outcome) {
        let now = exact();
        let took = now.nanos_since(self.started);
        (self.took, self.due) = (Some(took), Now::NEVER);
        let (core, settled) = (&self.member.core, self.settled(outcome, took));
        if matches!(outcome, Outcome::Success | Outcome::ClientError) {
            core.latency.record(took, now.tick());
        }
        if core.fuse.decide(&mut self.ticket, settled, now).is_some() {
            self.balance.review();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (passed, limit) = (exact().nanos_since(self.started), self.due.nanos_since(self.started));
        let late = self.due != Now::NEVER && u128::from(passed) * 100 >= u128::from(limit) * 95;
        self.end(if late { Outcome::Timeout } else { Outcome::Cancelled });
    }
}

/// The body of an answer, which holds the flight to its end.
pub(super) struct Landing {
    served: Served,
    protocol: Protocol,
    said: Said,
    flight: Option<Flight>,
}

impl Landing {
    /// The body of an answer with this head.
    pub(super) fn new(mut flight: Flight, served: Served, protocol: Protocol, said: Said) -> Self {
        let mut landing = Self { served, protocol, said, flight: None };
        if landing.served.is_end_stream() {
            flight.end(landing.outcome(&flight));
        } else {
            let so_far = if said == Said::Nothing { Outcome::Success } else { flight.outcome(said) };
            flight.answered(so_far);
            landing.flight = Some(flight);
        }
        landing
    }

    fn outcome(&self, flight: &Flight) -> Outcome {
        // gRPC-Web has its status in the body, which nobody here reads.
        let unseen = self.said == Said::Nothing && self.protocol.is_web();
        if unseen { Outcome::Success } else { flight.outcome(self.said) }
    }
}

impl http_body::Body for Landing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(mut frame) = Pin::new(&mut this.served).poll_frame(cx) else { return Poll::Pending };
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            let mut said = this.protocol.trailers(trailers);
            if said.is_error() {
                answers::plain(this.protocol, trailers);
                said = this.protocol.trailers(trailers);
            }
            if said != Said::Nothing {
                this.said = said;
            }
        }
        let broken = matches!(frame, Some(Err(_)));
        let ended = match &frame {
            None | Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_trailers() || this.served.is_end_stream(),
        };
        if ended && let Some(mut flight) = this.flight.take() {
            flight.end(if broken { Outcome::Failure } else { this.outcome(&flight) });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.served.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.served.size_hint()
    }
}

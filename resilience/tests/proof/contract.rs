//! The contract of tower, one probe run against every layer (tower-resilience broke it four times).

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use fusebox::{CommandError, Fusebox, Policy};
use fusebox_policy::policy::{BreakerMode, ServerPolicy};
use http::{Request, Response};
use tower::{Layer, Service};

use crate::common::calls::{fixed, limited, poll_once, under, with};
use crate::common::http::{Broken, Steps, get, response};
use crate::common::policy;

/// What the inner service says of its readiness.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Ready,
    Pending,
    Broken,
}

/// A service that has to be asked before each call, and notes who does not.
struct Probe {
    ready: bool,
    seen: Rc<Seen>,
}

struct Seen {
    says: Cell<Says>,
    calls: Cell<usize>,
    unready: Cell<usize>,
    /// The work of calls hangs.
    hangs: Cell<bool>,
}

/// As tower has it: a clone is not ready because its original was.
impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { ready: false, seen: Rc::clone(&self.seen) }
    }
}

impl Service<Request<()>> for Probe {
    type Response = Response<Steps>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Steps>, Broken>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.seen.says.get() {
            Says::Ready => self.ready = true,
            Says::Pending => return Poll::Pending,
            Says::Broken => return Poll::Ready(Err(Broken)),
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let count = |cell: &Cell<usize>| cell.set(cell.get() + 1);
        count(&self.seen.calls);
        if !std::mem::take(&mut self.ready) {
            count(&self.seen.unready);
        }
        let hangs = self.seen.hangs.get();
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(response(200, &[], Steps { says_end: true, ..Steps::default() }))
        })
    }
}

/// How a call of a layered service ended.
#[derive(Debug, PartialEq)]
enum End {
    Answered,
    Refused,
    Failed,
}

type Ended<S> = Result<<S as Service<Request<()>>>::Response, <S as Service<Request<()>>>::Error>;

/// Runs a layer with a limit of one through the whole contract. `end` reads its answers.
fn contract<L>(layer: &L, end: impl Fn(Ended<L::Service>) -> End)
where
    L: Layer<Probe>,
    L::Service: Service<Request<()>> + Clone,
{
    let at_once = |call: <L::Service as Service<Request<()>>>::Future| match poll_once(std::pin::pin!(call)) {
        Poll::Ready(answer) => Some(end(answer)),
        Poll::Pending => None,
    };
    let seen = Rc::new(Seen {
        says: Cell::new(Says::Pending),
        calls: Cell::new(0),
        unready: Cell::new(0),
        hangs: Cell::new(false),
    });
    let mut service = layer.layer(Probe { ready: false, seen: Rc::clone(&seen) });
    let cx = &mut Context::from_waker(Waker::noop());
    let mut called = 0;
    let mut calls = |more: usize| {
        called += more;
        assert_eq!(
            (seen.calls.get(), seen.unready.get()),
            (called, 0),
            "calls, and those of a service that was not ready"
        );
    };

    assert!(service.poll_ready(cx).is_pending(), "it waits for the inner service");
    seen.says.set(Says::Broken);
    let Poll::Ready(Err(error)) = service.poll_ready(cx) else { panic!("the error is the service's") };
    assert_eq!(end(Err(error)), End::Failed);
    calls(0);

    // Usable after the inner service's error, by the service that was asked and by a clone of it.
    seen.says.set(Says::Ready);
    for _ in 0..3 {
        assert!(service.poll_ready(cx).is_ready_ok());
        let mut other = service.clone();
        assert_eq!(at_once(service.call(get())), Some(End::Answered));
        calls(1);
        assert!(other.poll_ready(cx).is_ready_ok());
        assert_eq!(at_once(other.call(get())), Some(End::Answered));
        calls(1);
    }

    // One limit for all clones; a refused call does not reach the inner service and leaves it ready.
    seen.hangs.set(true);
    assert!(service.poll_ready(cx).is_ready_ok());
    let mut holds = Box::pin(service.call(get()));
    assert!(poll_once(holds.as_mut()).is_pending());
    calls(1);
    for mut other in [service.clone(), layer.layer(Probe { ready: false, seen: Rc::clone(&seen) })] {
        assert!(other.poll_ready(cx).is_ready_ok(), "what policy refuses is no reason not to be ready");
        for _ in 0..3 {
            assert_eq!(at_once(other.call(get())), Some(End::Refused));
        }
        calls(0);
        drop(holds);
        // Its readiness was not used up: no further asking.
        holds = Box::pin(other.call(get()));
        calls(1);
        assert!(poll_once(holds.as_mut()).is_pending());
    }
    // Dropped without an answer, it is over.
    drop(holds);
    seen.hangs.set(false);
    assert!(service.poll_ready(cx).is_ready_ok());
    assert_eq!(at_once(service.call(get())), Some(End::Answered));
    calls(1);
}

trait ReadyOk {
    fn is_ready_ok(&self) -> bool;
}

impl<E> ReadyOk for Poll<Result<(), E>> {
    fn is_ready_ok(&self) -> bool {
        matches!(self, Poll::Ready(Ok(())))
    }
}

fn http_end<B>(answer: Result<Response<B>, Broken>) -> End {
    match answer {
        Ok(answer) if answer.status() == 200 => End::Answered,
        Ok(_) => End::Refused,
        Err(Broken) => End::Failed,
    }
}

#[allow(clippy::needless_pass_by_value)] // as `contract` hands it over
fn command_end<T>(answer: Result<T, CommandError<Broken>>) -> End {
    match answer {
        Ok(_) => End::Answered,
        Err(CommandError::Failed(Broken)) => End::Failed,
        Err(_) => End::Refused,
    }
}

fn inbound() -> Policy {
    let mut policy = Policy::compiled_in();
    policy.inbound.default =
        ServerPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..ServerPolicy::default() };
    policy
}

#[tokio::test(start_paused = true)]
async fn r9_the_command_layer_keeps_towers_contract() {
    contract(&fixed(limited(1)).1.layer(), command_end);
    contract(&fixed(limited(1)).1.layer_classified(|_: &Broken| fusebox::Class::Failure), command_end);
    let shadowed = crate::common::calls::shadowed(limited(1), with(|_| ()));
    contract(&under(shadowed).1.layer(), command_end);
}

#[tokio::test(start_paused = true)]
async fn r9_the_http_layer_of_a_command_keeps_towers_contract() {
    contract(&fixed(limited(1)).1.http_layer(), http_end);
    let breaker = with(|b| b.mode = BreakerMode::ForcedClosed);
    let command = fusebox_policy::policy::CommandPolicy {
        max_concurrent_requests: limited(1).max_concurrent_requests,
        ..breaker
    };
    contract(&fixed(command).1.http_layer(), http_end);
}

#[tokio::test(start_paused = true)]
async fn r9_the_server_layer_keeps_towers_contract() {
    contract(&Fusebox::fixed(inbound()).server_layer(), http_end);
}

/// The inner service's error of readiness is nobody's call.
#[tokio::test(start_paused = true)]
async fn r9_an_error_of_readiness_counts_for_no_call() {
    let (fusebox, c) = fixed(with(|_| ()));
    let seen = Rc::new(Seen {
        says: Cell::new(Says::Broken),
        calls: Cell::new(0),
        unready: Cell::new(0),
        hangs: Cell::new(false),
    });
    let mut service = c.layer().layer(Probe { ready: false, seen });
    for _ in 0..20 {
        assert!(!service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready_ok());
    }
    assert_eq!((crate::common::calls::counted(&fusebox), crate::common::state(&fusebox)), (0, 0));
    fusebox.apply(&policy(limited(1)));
}

//! tower's own layers: a limit and a timeout, which is half of a full stack.

use std::time::Duration;

use anyhow::Result;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder, service_fn};

use super::{Case, Entry, Has, Layered, absent};
use crate::inner::{self, Fault};
use crate::measure::{Measured, Plan, measure};

pub const ENTRY: Entry = Entry {
    name: "tower",
    package: Some("tower"),
    has: |case| match case {
        Case::Ready | Case::Pending => Has::Yes("none (limit and timeout only)"),
        _ => Has::Absent,
    },
    measure: of,
};

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    match case {
        Case::Ready => measure(Layered { service: stack(service_fn(inner::ready)), answers: true }, plan),
        Case::Pending => {
            measure(Layered { service: stack(service_fn(inner::pending_once)), answers: true }, plan)
        }
        _ => absent(),
    }
}

fn stack<S>(inner: S) -> impl Service<u64> + Clone + Send
where
    S: Service<u64, Error = Fault> + Clone + Send,
{
    ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1000))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .service(inner)
}

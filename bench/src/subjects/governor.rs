//! governor: a rate limit alone.

use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Result;
use governor::{Quota, RateLimiter};

use super::{Case, Closure, Entry, Has, absent};
use crate::inner;
use crate::measure::{Measured, Plan, measure};

pub const ENTRY: Entry = Entry {
    name: "governor",
    package: Some("governor"),
    has: |case| match case {
        // In the rows of a lone breaker under threads: a lone limit on one shared word.
        Case::Success | Case::Ready => Has::Yes("none (rate only)"),
        _ => Has::Absent,
    },
    measure: of,
};

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    if !matches!(case, Case::Success | Case::Ready) {
        return absent();
    }
    let limiter = Arc::new(RateLimiter::direct(Quota::per_second(NonZeroU32::MAX)));
    let call = async move |i| match limiter.check() {
        Ok(()) => inner::ready(i).await.is_ok(),
        Err(_) => false,
    };
    measure(Closure { call, answers: true }, plan)
}

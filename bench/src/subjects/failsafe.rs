//! failsafe: a breaker over a moving average.

use std::time::Duration;

use anyhow::{Result, ensure};
use failsafe::{CircuitBreaker, Config, backoff, failure_policy};

use super::{Case, Closure, Entry, Has, absent};
use crate::inner::{self, Answer, Fault};
use crate::measure::{Measured, Plan, measure, spin};

pub const ENTRY: Entry = Entry {
    name: "failsafe",
    package: Some("failsafe"),
    has: |case| match case {
        Case::Success | Case::OpenReject => Has::Yes("time, 10 s, moving average"),
        Case::HalfOpenProbe => Has::No("its first success closes it"),
        Case::Ready | Case::Pending | Case::Reload => Has::Absent,
    },
    measure: of,
};

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    let wait = backoff::constant(Duration::from_hours(1));
    match case {
        Case::Success => {
            let policy =
                failure_policy::success_rate_over_time_window(0.5, 20, Duration::from_secs(10), wait);
            let breaker = Config::new().failure_policy(policy).build();
            let call = async move |i| breaker.call(|| spin(inner::ready(i))).is_ok();
            measure(Closure { call, answers: true }, plan)
        }
        Case::OpenReject => {
            // Whatever opened it, refusing is the same.
            let breaker = Config::new().failure_policy(failure_policy::consecutive_failures(1, wait)).build();
            let _ = breaker.call(|| Err(Fault::Callee) as Answer);
            ensure!(!breaker.is_call_permitted(), "one failure did not open the breaker");
            let call = async move |i| breaker.call(|| spin(inner::ready(i))).is_ok();
            measure(Closure { call, answers: false }, plan)
        }
        _ => absent(),
    }
}

//! recloser: a breaker over a ring of the last calls.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use recloser::{Error, Recloser};

use super::{Case, Closure, Entry, Has, absent};
use crate::inner::{self, Answer, Fault};
use crate::measure::{Measured, Plan, measure, spin};

pub const ENTRY: Entry = Entry {
    name: "recloser",
    package: Some("recloser"),
    has: |case| match case {
        Case::Success | Case::OpenReject | Case::HalfOpenProbe => Has::Yes("count, 100 calls"),
        Case::Ready | Case::Pending | Case::Reload => Has::Absent,
    },
    measure: of,
};

/// More probes than a row makes: with all of them in it judges, and closes.
const PROBES: usize = 1 << 26;

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    let (breaker, answers) = match case {
        Case::Success => (Recloser::custom().closed_len(100).error_rate(0.5).build(), true),
        Case::OpenReject => (opened(Duration::from_hours(1), Duration::ZERO)?, false),
        Case::HalfOpenProbe => (opened(Duration::from_millis(1), Duration::from_millis(20))?, true),
        Case::Ready | Case::Pending | Case::Reload => return absent(),
    };
    let breaker = Arc::new(breaker);
    // Its way for closures: the one for futures costs a clone of an Arc more.
    let call = async move |i| breaker.call(|| spin(inner::ready(i))).is_ok();
    measure(Closure { call, answers }, plan)
}

fn opened(wait: Duration, sleep: Duration) -> Result<Recloser> {
    let breaker =
        Recloser::custom().closed_len(10).half_open_len(PROBES).error_rate(0.5).open_wait(wait).build();
    for _ in 0..20 {
        let _ = breaker.call(|| Err(Fault::Callee) as Answer);
    }
    let refused = matches!(breaker.call(|| Ok::<_, Fault>(0)), Err(Error::Rejected));
    ensure!(refused || !sleep.is_zero(), "failures did not open the breaker");
    std::thread::sleep(sleep);
    // The ring of probes is made here, outside the timed loop.
    let _ = breaker.call(|| Ok::<_, Fault>(0));
    Ok(breaker)
}

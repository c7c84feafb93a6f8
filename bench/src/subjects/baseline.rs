//! The bare service.

use tower::service_fn;

use super::{Case, Entry, Has, Layered, absent};
use crate::inner;
use crate::measure::measure;

pub const ENTRY: Entry = Entry {
    name: "baseline",
    package: None,
    has: |case| match case {
        Case::Success | Case::OpenReject | Case::HalfOpenProbe | Case::Ready | Case::Pending => {
            Has::Yes("none")
        }
        Case::Reload => Has::Absent,
    },
    measure: |case, plan| match case {
        // What is refused is measured against what is not called, too.
        Case::Success | Case::OpenReject | Case::HalfOpenProbe | Case::Ready => {
            measure(Layered { service: service_fn(inner::ready), answers: true }, plan)
        }
        Case::Pending => measure(Layered { service: service_fn(inner::pending_once), answers: true }, plan),
        Case::Reload => absent(),
    },
};

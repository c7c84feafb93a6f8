//! etcd as this library and the operator use it: how to connect, and a watch that survives.

mod connect;
mod follow;
mod known;
mod link;
mod real;

pub(crate) use connect::answered;
pub use connect::{EtcdConfig, EtcdError, connect};
pub use follow::{Change, Entry, Follow, Range, end_of, follow};
pub use link::{Connection, Lease, Link, Message, Page, PageRequest, Watch};
pub use real::Granted;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Delays between attempts: from 100 ms, doubling up to 3 s, each lengthened by up to as much again
/// at random, so that the instances of a service do not come back all at once.
pub(crate) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter()
        .build()
}

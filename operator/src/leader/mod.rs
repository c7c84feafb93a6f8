//! Which of several replicas works: one Lease of Kubernetes, taken and kept by client-go's rules.
//!
//! # Guarantees
//! - Another's lease is over when its record did not change for its whole duration, by our own monotonic clock
//!   since we saw it so. No time that somebody else wrote is compared with a clock of ours.
//! - Every write of the Lease has the `resourceVersion` it was read at as its precondition.
//! - Leadership ends by our own clock [`RENEW_DEADLINE`] after the last successful renewal was *sent*, whether or
//!   not the renewals in between are answered. So no two processes that run believe to lead, as long as no clock
//!   is more than half again as fast as another.
//!
//! # Assumptions
//! - The identity is unique for each start of the process, and a pod runs one process at a time.
//! - A write that had no answer may have taken place, and may still take place later.
//!
//! # Caveats
//! - A process may be frozen between its last look at its clock and its write. What it writes then is refused
//!   by the store itself ([`crate::epoch`]); routes have no such fence.
//! - A Lease that somebody deletes is free for whoever is first, as with client-go.

mod clock;
pub mod decide;
pub mod elector;
mod port;
pub mod standing;
mod supervise;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use clock::Clock;
pub use elector::Elector;
pub use port::{LeaseStore, WriteError};
pub use standing::Leadership;
pub use supervise::{End, supervise};

use crate::ports::{Answer, Unavailable};

/// How long a lease is good without a renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the leader goes on without a renewal.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the leader renews. The others look after half of it to all of it, at random, so that they do not
/// come together.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// How long one request may take: short enough for a second try within the renew deadline.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// The right to be the writer, as the rest of the program asks for it.
pub trait Tenure: Send + Sync {
    /// Does this process lead, by its own clock? Asked before every write.
    fn holds(&self) -> bool;

    /// Does it lead, by a fresh read of the Lease? Asked before an epoch is raised.
    fn confirm(&self) -> Answer<'_, Result<bool, Unavailable>>;
}

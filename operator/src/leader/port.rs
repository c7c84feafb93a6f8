//! What the elector needs of Kubernetes.

use super::decide::Record;
use crate::ports::{Answer, Unavailable};

/// Why a write of the Lease did nothing, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It is not where it was read: somebody else wrote, created or deleted it.
    #[error("somebody else wrote the Lease at the same time")]
    Conflict,
    /// No answer: it may have happened or not, or may still happen.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a Lease says and where that stands, if there is one.
pub type Found<At> = Option<(Record, At)>;

/// One Lease. The elector gives each request its deadline, by dropping the future.
pub trait LeaseStore: Send + Sync {
    /// Where a record stood when it was read, as the store needs it to write there.
    type At: Send + Sync;

    /// What it says, read consistently.
    fn read(&self) -> Answer<'_, Result<Found<Self::At>, Unavailable>>;

    /// Writes `record` if the Lease still is as it was at `at` (None: is absent).
    fn write<'a>(
        &'a self,
        record: &'a Record,
        at: Option<&'a Self::At>,
    ) -> Answer<'a, Result<(), WriteError>>;
}

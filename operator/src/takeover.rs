//! The epochs of a new leader: taken before its first effect, where the store answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::epoch::Fenced;
use crate::ports::EpochStore;

/// How long a start waits for a backend that does not answer, before it goes on without.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often a backend that was not there at the start is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Takes the epoch of a store. False: it did not answer in time, so it is to be taken behind the scenes.
pub async fn take<S: EpochStore + ?Sized>(store: &Fenced<S>) -> bool {
    match timeout(PATIENCE, store.fence()).await {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a backend does not answer yet; the rest goes on without it");
        }
        Err(_) => tracing::warn!("a backend does not answer yet; the rest goes on without it"),
    }
    false
}

/// Goes on trying; once the epoch is taken, everything is looked at again.
pub async fn keep_taking<S: EpochStore + ?Sized>(store: &Fenced<S>) {
    while store.fence().await.is_err() {
        sleep(AGAIN).await;
    }
    store.signals().resync.notify_one();
}

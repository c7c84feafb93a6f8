//! How many instances share the rates of scope `Service`.

use std::sync::Arc;

use fusebox_policy::wire::Fleet;

use crate::etcd::{Change, Link, Range, follow};
use crate::fusebox::Shared;

/// Follows the count for as long as a policy in force needs it. Until the first has come there is one
/// instance, and each permits the whole rate: a service that starts is not throttled by a guess.
pub(super) async fn run(etcd: impl Link, key: String, shared: Arc<Shared>) {
    let mut applied = shared.applied.subscribe();
    while applied.wait_for(|applied| applied.shares_rates).await.is_ok() {
        let mut counts = follow(etcd.clone(), Range::Key(key.clone()));
        loop {
            tokio::select! {
                change = counts.next() => match change {
                    Some(change) => take(&shared, change),
                    None => return,
                },
                gone = applied.wait_for(|applied| !applied.shares_rates) => match gone {
                    Ok(_) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// What cannot be read, and a key that is gone, leave the last count.
fn take(shared: &Shared, change: Change) {
    let entry = match change {
        Change::Snapshot(entries) => entries.into_values().next(),
        Change::Put { entry, .. } => Some(entry),
        Change::Delete { .. } => None,
    };
    let Some(entry) = entry else { return };
    match serde_json::from_slice::<Fleet>(&entry.value) {
        Ok(fleet) => shared.set_instances(fleet.ready),
        Err(error) => tracing::warn!(%error, "the number of instances cannot be read: the last one stays"),
    }
}

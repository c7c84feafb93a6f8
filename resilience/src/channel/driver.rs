//! Keeps a channel at what is known of its service, and under the policy in force.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::balance::Balance;
use crate::clock::{Now, exact};
use crate::discovery::Watcher;
use crate::fusebox::Applied;

/// Runs until it is dropped.
pub(super) async fn drive(
    balance: Arc<Balance>,
    watcher: Arc<Watcher>,
    mut applied: watch::Receiver<Applied>,
) {
    let mut known = watcher.known.clone();
    // Its source may end: what was known last stays.
    let mut followed = true;
    loop {
        let now_known = known.borrow_and_update().clone();
        let now = exact();
        balance.update(&now_known, now);
        // A list that has become too old needs to be looked at once more, and never again.
        let expires = now_known.expires(balance.options.max_age).filter(|expires| *expires > now);
        let expires = expires.and_then(Now::instant);
        loop {
            tokio::select! {
                changed = known.changed(), if followed => followed = changed.is_ok(),
                Ok(()) = applied.changed() => {
                    balance.reload();
                    continue;
                }
                () = async { match expires { Some(at) => sleep_until(at).await, None => pending().await } } => {}
            }
            break;
        }
    }
}

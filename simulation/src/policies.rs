//! The policies that schedules speak of, by number.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fusebox::{Fusebox, Policy, PolicyBuilder, PolicyHash};
use fusebox_policy::wire::PolicyDocument;
use futures::FutureExt;

/// How many there are: 1 to this.
pub const MOST: u64 = 4;
/// The cluster of the simulations in memory.
pub const CLUSTER: &str = "simulation";

/// Two commands whose timeouts tell the number: both must tell the same.
fn timeout(number: u64) -> Duration {
    Duration::from_secs(10 * number)
}

/// The policy of a number.
pub fn policy(number: u64) -> Policy {
    let built = PolicyBuilder::new()
        .command("a", |command| command.timeout(timeout(number)))
        .command("b", |command| command.timeout(timeout(number)))
        .build();
    built.unwrap_or_else(|_| Policy::compiled_in())
}

/// The document of a number.
pub fn document(number: u64) -> PolicyDocument {
    PolicyDocument::new("uid", policy(number))
}

/// The number of a hash.
pub fn number(hash: &PolicyHash) -> Option<u64> {
    (1..=MOST).find(|number| PolicyHash::of(&policy(*number)) == *hash)
}

/// The policies a process has run, as they came into force.
#[derive(Clone, Debug, Default)]
pub struct Ran(Arc<Mutex<Vec<u64>>>);

impl Ran {
    /// Records them in a task, for as long as the runtime lives.
    pub fn record(fusebox: &Fusebox) -> Self {
        let (ran, fusebox) = (Self::default(), fusebox.clone());
        let list = Arc::clone(&ran.0);
        tokio::spawn(async move {
            let mut known = None;
            while let Some(hash) = fusebox.policy_other_than(known.as_ref()).await {
                list.lock().unwrap_or_else(PoisonError::into_inner).extend(number(&hash));
                known = Some(hash);
            }
        });
        ran
    }

    /// Those since the last time this was asked.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The number of the policy that calls run under now, or what contradicts itself.
pub fn in_force(fusebox: &Fusebox) -> Result<Option<u64>, String> {
    let told = fusebox.policy_hash();
    let felt = |name: &str| {
        let call =
            fusebox.command(name).call(|| async { Ok::<_, std::io::Error>(fusebox::deadline::remaining()) });
        call.into_future().now_or_never().and_then(Result::ok).flatten()
    };
    let Some(hash) = told else { return Ok(None) };
    let (a, b) = (felt("a"), felt("b"));
    let number = number(&hash);
    // The clock may be read a tick later than the deadline was made.
    let agrees = |felt: Option<Duration>| match (felt, number) {
        (Some(felt), Some(number)) => felt.abs_diff(timeout(number)) < Duration::from_secs(1),
        _ => false,
    };
    if agrees(a) && agrees(b) {
        Ok(number)
    } else {
        Err(format!("{hash} is policy {number:?}, calls feel {a:?} and {b:?}"))
    }
}

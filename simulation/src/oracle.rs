//! The promise, kept apart from all that should keep it: never `Enforced=True` while a ready instance runs
//! another policy, but for the stated bound.

use std::collections::HashMap;
use std::time::Duration;

/// Twice the lease of a report.
pub const BOUND: Duration = Duration::from_secs(20);

/// An instance as it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Of a pod.
    pub pod: u64,
    /// Is it sent traffic?
    pub ready: bool,
    /// The policies its process runs or has run since the last look, by number.
    pub runs: Vec<u64>,
}

/// Watches over one schedule.
#[derive(Debug, Default)]
pub struct Oracle {
    pods: HashMap<u64, Record>,
    /// The longest that Enforced was True beside an instance that ran another policy.
    pub worst: Duration,
}

#[derive(Debug, Default)]
struct Record {
    ready_since: Option<Duration>,
    ran: HashMap<u64, Duration>,
}

impl Oracle {
    /// What is so now: the policy that the resource asks for if it is said to be enforced, and the instances.
    /// Err: the promise is broken.
    pub fn see(&mut self, now: Duration, enforced: Option<u64>, pods: &[Truth]) -> Result<(), String> {
        self.pods.retain(|pod, _| pods.iter().any(|seen| seen.pod == *pod));
        for seen in pods {
            let record = self.pods.entry(seen.pod).or_default();
            record.ready_since = if seen.ready { record.ready_since.or(Some(now)) } else { None };
            record.ran.extend(seen.runs.iter().map(|number| (*number, now)));
            let (Some(told), Some(ready_since)) = (enforced, record.ready_since) else { continue };
            let last = record.ran.get(&told).copied().unwrap_or_default().max(ready_since);
            let since = now.saturating_sub(last);
            self.worst = self.worst.max(since);
            if since > BOUND {
                return Err(format!(
                    "at {now:?} Enforced is True of policy {told}, and pod {} has been ready without it for {since:?}: {seen:?}",
                    seen.pod
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_ready_instance_may_run_another_policy_for_the_bound_and_no_longer() {
        let mut oracle = Oracle::default();
        let runs = |runs| [Truth { pod: 1, ready: true, runs: vec![runs] }];
        assert_eq!(oracle.see(seconds(1), Some(7), &runs(7)), Ok(()));
        assert_eq!(oracle.see(seconds(21), Some(7), &runs(8)), Ok(()));
        assert_eq!(oracle.worst, BOUND);
        assert_eq!(oracle.see(seconds(22), None, &runs(8)), Ok(()), "nobody says so");
        assert!(oracle.see(seconds(22), Some(7), &runs(8)).unwrap_err().contains("21s"));
    }

    #[test]
    fn an_instance_that_was_not_ready_in_between_counts_from_then_on() {
        let mut oracle = Oracle::default();
        let pod = |ready| [Truth { pod: 1, ready, runs: Vec::new() }];
        assert_eq!(oracle.see(seconds(1), Some(7), &pod(true)), Ok(()));
        assert_eq!(oracle.see(seconds(15), Some(7), &pod(false)), Ok(()));
        assert_eq!(oracle.see(seconds(30), Some(7), &pod(true)), Ok(()));
        assert!(oracle.see(seconds(51), Some(7), &pod(true)).is_err());
    }
}

//! The documents that are put, each with its number in it, and the number found again.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::policy::Policy;
use fusebox_policy::wire::PolicyDocument;
use serde_json::{Value, json};

/// As the process under policy is told them.
pub const CLUSTER: &str = "bench";
pub const SERVICE: [&str; 2] = ["bench", "feed"];

/// The command whose calls are counted, with all that a policy holds a call to.
pub const COMMAND: &str = "bench";
/// The command whose calls show two fields of one policy: its timeout, and whether its fallback runs.
pub const PAIR: &str = "pair";

/// Who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Fusebox: a whole policy document
    Policy,
    /// Viper: one JSON document of about the same size
    Config,
}

/// The timeout of document 0, and by how much that of the next is longer: a call that loses the processor
/// for less than that between two readings of the clock still shows the right one.
const FIRST_MS: u64 = 1000;
const STEP_MS: u64 = 50;

/// The number of the last document whose timeout a policy can hold: an hour.
pub const MOST: u32 = 71_980;

impl Kind {
    /// Where it stands in etcd.
    pub fn key(self) -> String {
        let (keys, of) = (Keys::new(CLUSTER), Ident::new(SERVICE[0], SERVICE[1]));
        match self {
            Self::Policy => keys.policy(&of),
            Self::Config => keys.config(&of),
        }
    }

    /// The documents of these numbers.
    pub fn documents(self, numbers: impl Iterator<Item = u32>) -> Result<Vec<String>> {
        let mut policy = policy()?;
        numbers
            .map(|number| match self {
                Self::Policy => numbered(&mut policy, number),
                Self::Config => Ok(config(number)),
            })
            .collect()
    }
}

/// A policy as a service has it: some methods, some commands.
pub fn policy() -> Result<Policy> {
    let breaker = json!({
        "errorPercentThreshold": 50, "requestVolumeThreshold": 20, "sleepWindowMs": 5000,
        "rollingWindowMs": 10_000, "halfOpenProbes": 1,
    });
    // No timeout may be longer than its breaker's window.
    let mut long = breaker.clone();
    long["rollingWindowMs"] = json!(3_600_000);
    let full = json!({
        "timeoutMs": FIRST_MS, "maxConcurrentRequests": 1000, "circuitBreaker": long,
        "rateLimit": {"requestsPerSecond": 250_000_000, "burst": 1_000_000},
    });
    let other = json!({"timeoutMs": 300, "maxConcurrentRequests": 100, "circuitBreaker": breaker});
    let method = |name: &str| {
        json!({
            "match": {"grpc": {"service": "user.v1.UserService", "method": name}},
            "policy": {"timeoutMs": 500, "maxConcurrentRequests": 100},
        })
    };
    let policy = json!({
        "inbound": {
            "default": {"timeoutMs": 1000, "maxConcurrentRequests": 100},
            "methods": [method("GetUser"), method("ListUsers"), method("UpdateUser")],
        },
        "outbound": {
            "default": other,
            "commands": {
                COMMAND: full, PAIR: {"timeoutMs": FIRST_MS},
                "find_user": other, "list_users": other, "update_user": other,
            },
        },
    });
    Ok(serde_json::from_value(policy)?)
}

/// The document of a policy whose commands' timeouts say its number, and whose [`PAIR`] says by its fallback
/// whether that is even.
fn numbered(policy: &mut Policy, number: u32) -> Result<String> {
    let timeout = Some((FIRST_MS + STEP_MS * u64::from(number)).try_into()?);
    let commands = &mut policy.outbound.commands;
    commands.get_mut(COMMAND).context("no command")?.timeout_ms = timeout;
    let pair = commands.get_mut(PAIR).context("no pair")?;
    (pair.timeout_ms, pair.fallback_enabled) = (timeout, falls_back(number));
    Ok(PolicyDocument::new(format!("{number:08}"), policy.clone()).to_json())
}

/// Whether the fallback of the pair runs under this document.
pub const fn falls_back(number: u32) -> bool {
    number.is_multiple_of(2)
}

/// The number of the document that gave a call this time; None: it is none of ours.
pub fn of_timeout(remaining: Duration) -> Option<u32> {
    // Of the timeout some nanoseconds are gone when the call looks.
    let over = u64::try_from(remaining.as_nanos().div_ceil(1_000_000)).ok()?.checked_sub(FIRST_MS)?;
    u32::try_from(over.div_ceil(STEP_MS)).ok()
}

/// The number of a document as it came: its uid, which has no part in the hash.
pub fn of_bytes(document: &[u8]) -> Option<u32> {
    const UID: &[u8] = b"\"uid\":\"";
    let at = document.windows(UID.len()).position(|window| window == UID)? + UID.len();
    std::str::from_utf8(document.get(at..at + 8)?).ok()?.parse().ok()
}

/// Its number first and last, with as much between as a policy has.
fn config(number: u32) -> String {
    let entry = |n: u32| json!({"host": format!("backend-{n}.example"), "timeout": 300, "retries": 2});
    let between: Vec<Value> = (0..24).map(entry).collect();
    format!(r#"{{"uid":"{number:08}","first":{number},"backends":{},"last":{number}}}"#, json!(between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_valid_and_its_number_is_found_again() {
        let documents = Kind::Policy.documents([0, 7, MOST].into_iter()).unwrap();
        for (text, number) in documents.iter().zip([0, 7, MOST]) {
            let read = PolicyDocument::from_json(text.as_bytes()).unwrap();
            let pair = &read.outbound.commands[PAIR];
            assert_eq!(of_timeout(pair.timeout_ms.unwrap().get()), Some(number));
            assert_eq!((of_bytes(text.as_bytes()), pair.fallback_enabled), (Some(number), number != 7));
        }
        assert!(Kind::Policy.documents([MOST + 1].into_iter()).is_err());
    }

    #[test]
    fn a_call_may_look_a_little_later() {
        let timeout = Duration::from_millis(FIRST_MS + 3 * STEP_MS);
        assert_eq!(of_timeout(timeout.saturating_sub(Duration::from_millis(49))), Some(3));
        assert_eq!(of_timeout(timeout.saturating_sub(Duration::from_nanos(1))), Some(3));
        assert_eq!(of_timeout(Duration::from_millis(10)), None);
    }

    #[test]
    fn a_config_is_of_about_the_same_size() {
        let of = |kind: Kind| kind.documents(std::iter::once(5)).unwrap().remove(0);
        let (policy, config) = (of(Kind::Policy).len(), of(Kind::Config).len());
        assert!(policy.abs_diff(config) < policy / 5, "{policy} and {config} bytes");
        let config: Value = serde_json::from_str(&of(Kind::Config)).unwrap();
        assert_eq!((&config["first"], &config["last"]), (&json!(5), &json!(5)));
    }
}

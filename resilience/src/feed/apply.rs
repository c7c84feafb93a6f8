//! From the bytes of a document to a policy in force.

use std::sync::atomic::Ordering;

use fusebox_policy::wire::{MAX_POLICY_BYTES, PolicyDocument, PolicyHash, Rejected};

use crate::fusebox::Shared;
use crate::layer::fallback;

/// Puts a document in force, or refuses it whole: then the last good policy stays and the refusal is
/// reported until another document comes. Whether it is in force.
pub(super) fn apply(shared: &Shared, bytes: &[u8]) -> bool {
    let read = PolicyDocument::from_json(bytes).map_err(|refused| refused.to_string());
    let checked = read.and_then(|document| {
        let wrong = fallback::violations(&document.policy().inbound, &shared.methods.descriptors);
        if wrong.is_empty() { Ok(document) } else { Err(wrong.join("; ")) }
    });
    match checked {
        Ok(document) => {
            let in_force = shared.applied.borrow().hash.clone();
            if in_force.as_ref() == Some(&document.hash) {
                // Written again, or the good one after a bad one.
                shared.refuse(None);
            } else {
                tracing::info!(hash = %document.hash, "policy in force");
                shared.apply(&document.policy(), document.hash);
            }
            true
        }
        Err(refused) => {
            let reason = clip(refused);
            tracing::error!(%reason, "policy document refused: what is in force stays");
            shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            shared.refuse(Some(Rejected { hash: claimed_hash(bytes), reason }));
            false
        }
    }
}

/// The longest reason of a refusal, in characters: it quotes the document, and is logged and reported.
const MAX_REASON: usize = 1000;

fn clip(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
        reason.truncate(end);
    }
    reason
}

/// The hash that a document gives itself, however wrong the rest of it is: if the document is one that
/// would be read at all, and the hash looks like one. It is reported, whoever wrote it.
fn claimed_hash(bytes: &[u8]) -> Option<PolicyHash> {
    if bytes.len() > MAX_POLICY_BYTES {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let hash = document.get("hash")?.as_str()?;
    let looks_like_one = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    looks_like_one.then(|| hash.parse().ok())?
}

#[cfg(test)]
mod tests {
    use fusebox_policy::policy::{Limit, Policy};

    use super::*;

    fn document(limit: u64) -> String {
        let mut policy = Policy::compiled_in();
        policy.inbound.default.max_concurrent_requests = Some(Limit::try_from(limit).unwrap());
        PolicyDocument::new("uid", policy).to_json()
    }

    #[test]
    fn a_refused_document_leaves_the_last_good_one_and_is_reported_until_the_next_good_one() {
        let shared = Shared::new(Policy::compiled_in(), None);
        apply(&shared, document(1).as_bytes());
        let good = shared.applied.borrow().clone();
        assert!(good.hash.is_some() && good.rejected.is_none());

        let edited = document(2).replace(":2}", ":3}");
        apply(&shared, edited.as_bytes());
        let now = shared.applied.borrow().clone();
        assert_eq!((&now.hash, now.at), (&good.hash, good.at));
        let rejected = now.rejected.unwrap();
        let claimed = PolicyDocument::from_json(document(2).as_bytes()).unwrap().hash;
        assert_eq!(rejected.hash, Some(claimed));
        assert!(rejected.reason.contains("the document was not written whole"), "{}", rejected.reason);

        apply(&shared, b"{");
        assert_eq!(shared.applied.borrow().rejected.as_ref().unwrap().hash, None);
        apply(&shared, document(1).as_bytes());
        assert_eq!(*shared.applied.borrow(), good, "in force all the time");
        assert_eq!(shared.counts.refused.load(Ordering::Relaxed), 2);
        assert_eq!(shared.counts.applied.load(Ordering::Relaxed), 1);
    }

    /// What the reason is, depends on the library's features.
    #[test]
    fn a_message_that_cannot_be_given_is_refused_with_the_method() {
        let shared = Shared::new(Policy::compiled_in(), None);
        let mut policy = Policy::compiled_in();
        policy.inbound = serde_json::from_str(
            r#"{"default":{},"methods":[{"match":{"grpc":{"service":"a.S","method":"Get"}},
                "policy":{"fallback":{"message":{"json":"{}"}}}}]}"#,
        )
        .unwrap();
        apply(&shared, PolicyDocument::new("uid", policy).to_json().as_bytes());
        let rejected = shared.applied.borrow().rejected.clone().unwrap();
        assert!(rejected.reason.starts_with("inbound a.S/Get: fallback: the service"), "{}", rejected.reason);
        assert!(rejected.hash.is_some() && shared.applied.borrow().hash.is_none());
    }

    #[test]
    fn only_what_looks_like_a_hash_is_one() {
        let claimed = |hash: &str| claimed_hash(format!(r#"{{"hash":"{hash}"}}"#).as_bytes());
        assert_eq!(claimed("00112233aabbccdd"), "00112233aabbccdd".parse().ok());
        for hash in ["", "00112233aabbccd", "00112233aabbccdd0", "00112233aabbccdg", "ää112233aabbcc"] {
            assert_eq!(claimed(hash), None, "{hash}");
        }
        let large = format!(r#"{{"hash":"00112233aabbccdd","x":"{}"}}"#, "x".repeat(MAX_POLICY_BYTES));
        assert_eq!(claimed_hash(large.as_bytes()), None);
    }

    #[test]
    fn a_long_reason_is_clipped_between_characters() {
        let shared = Shared::new(Policy::compiled_in(), None);
        let field = "ä".repeat(20_000);
        let unknown = document(1).replace("\"inbound\"", &format!("\"{field}\""));
        apply(&shared, unknown.as_bytes());
        let reason = shared.applied.borrow().rejected.as_ref().unwrap().reason.clone();
        assert_eq!(reason.chars().count(), MAX_REASON);
        assert!(reason.contains("ää"), "{reason}");
    }
}

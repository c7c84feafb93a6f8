//! From the bytes of a document to a policy in force.

use std::sync::atomic::Ordering;

use fusebox_policy::wire::{PolicyDocument, PolicyHash, Rejected};

use crate::fusebox::Shared;

/// Puts a document in force, or refuses it whole: then the last good policy stays and the refusal is
/// reported until another document comes.
pub(super) fn apply(shared: &Shared, bytes: &[u8]) {
    match PolicyDocument::from_json(bytes) {
        Ok(document) => {
            let in_force = shared.applied.borrow().hash.clone();
            if in_force.as_ref() == Some(&document.hash) {
                // Written again, or the good one after a bad one.
                shared.refuse(None);
            } else {
                tracing::info!(hash = %document.hash, "policy in force");
                shared.apply(&document.policy(), document.hash);
            }
        }
        Err(refused) => {
            let reason = refused.to_string();
            tracing::error!(%reason, "policy document refused: what is in force stays");
            shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            shared.refuse(Some(Rejected { hash: claimed_hash(bytes), reason }));
        }
    }
}

/// The hash that a document gives itself, however wrong the rest of it is.
fn claimed_hash(bytes: &[u8]) -> Option<PolicyHash> {
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    document.get("hash")?.as_str()?.parse().ok()
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
}

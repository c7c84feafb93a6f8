//! Who changed what we keep in etcd: policies, config documents, fleets, lists of raw keys, raw keys and their claims.

use fusebox::etcd::{Change, Link, Range, follow};
use fusebox_policy::keys::{Ident, Key, Keys};
use futures::future::join_all;

use crate::drift::{Drifted, Tell};
use crate::intents::Intents;

/// Follows all of it for ever. What is there at first is not told of: every resource is looked at anyway.
pub async fn follow_drift(link: impl Link, keys: Keys, allowed: Vec<String>, intents: Intents, tell: Tell) {
    let own = ["policy", "config", "fleet", "raw"].map(|kind| format!("{}{kind}/", keys.prefix()));
    let raw = apart(allowed).into_iter().flat_map(|prefix| [Keys::raw_claim(&prefix), prefix]);
    let followed = own.into_iter().chain(raw).map(|prefix| {
        let mut feed = follow(link.clone(), Range::Prefix(prefix));
        let (keys, intents, tell) = (&keys, &intents, &tell);
        async move {
            while let Some(change) = feed.next().await {
                if let Some(drifted) = drifted(keys, intents, &change) {
                    let _ = tell.send(drifted);
                }
            }
        }
    });
    join_all(followed).await;
}

/// Each prefix that no other one covers.
fn apart(mut prefixes: Vec<String>) -> Vec<String> {
    prefixes.sort();
    prefixes.retain(|prefix| !prefix.is_empty());
    prefixes.dedup_by(|next, before| next.starts_with(before.as_str()));
    prefixes
}

/// What a change says that we did not mean.
fn drifted(keys: &Keys, intents: &Intents, change: &Change) -> Option<Drifted> {
    let (key, value) = match change {
        Change::Snapshot(_) => return None,
        Change::Put { key, entry } => (key, Some(entry.value.as_slice())),
        Change::Delete { key, .. } => (key, None),
    };
    if intents.fits(key, value) {
        return None;
    }
    let of = |of: Ident| Some(Drifted::Of(of));
    match keys.parse(key) {
        Some(Key::Policy(ident) | Key::Config(ident) | Key::Fleet(ident) | Key::Raw(ident)) => of(ident),
        Some(Key::Report(..) | Key::Epoch) => None,
        None => Some(Drifted::Raw(key.strip_prefix(&Keys::raw_claim("")).unwrap_or(key).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use fusebox::etcd::Entry;

    use super::*;

    #[test]
    fn what_was_meant_is_not_told_and_all_else_is_told_of_its_owner() {
        let (keys, intents, user) = (Keys::new("demo"), Intents::default(), Ident::new("shop", "user"));
        let put = |key: &str, value: &str| Change::Put {
            key: key.into(),
            entry: Entry { value: value.as_bytes().to_vec(), mod_revision: 1 },
        };
        let delete = |key: &str| Change::Delete { key: key.into(), mod_revision: 2 };
        let told = |change: Change| drifted(&keys, &intents, &change);
        let policy = keys.policy(&user);
        intents.meant(policy.clone(), Some(b"1"));
        assert_eq!(told(put(&policy, "1")), None);
        assert_eq!(told(put(&policy, "2")), Some(Drifted::Of(user.clone())));
        assert_eq!(told(delete(&policy)), Some(Drifted::Of(user.clone())));
        intents.meant(policy.clone(), None);
        assert_eq!(told(delete(&policy)), None);
        for key in [keys.config(&user), keys.fleet(&user), keys.raw(&user)] {
            assert_eq!(told(put(&key, "x")), Some(Drifted::Of(user.clone())), "{key}");
        }
        let raw = Some(Drifted::Raw("service.user.timeout".into()));
        assert_eq!(told(delete("service.user.timeout")), raw);
        assert_eq!(told(delete(&Keys::raw_claim("service.user.timeout"))), raw);
        for key in [keys.epoch(), keys.report(&user, "uid")] {
            assert_eq!(told(put(&key, "x")), None, "{key}");
        }
    }

    #[test]
    fn prefixes_that_another_covers_are_followed_once() {
        let all = ["b.", "a.b.", "a.", "", "a.b.c", "b."].map(str::to_owned).to_vec();
        assert_eq!(apart(all), ["a.", "b."]);
    }
}

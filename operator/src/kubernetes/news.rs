//! What of the watch of the resources is news. No I/O.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Predicate;
use kube::runtime::{predicates, watcher};

use super::Guarded;
use crate::claims;

/// A resource that changed, came or went.
#[derive(Debug)]
pub struct Change {
    /// Which one.
    pub of: ObjectRef<Guarded>,
    /// As it was and as it is, as far as it was and is.
    pub forms: Vec<Arc<Guarded>>,
}

/// Tells what concerns us from what does not: resources wake when their spec, their finalizers or annotations change,
/// when their deletion begins or ends; of their status, which we write ourselves, only for what they hold and whether
/// they stand back: others may wait for it. kube's own `predicate_filter` holds back the end of a deletion:
/// the last event shows the object as it was before its finalizer went, so nothing in it is new.
#[derive(Default)]
pub struct News {
    /// Each object as it was when it last was news, and the hash of what makes news.
    known: HashMap<ObjectRef<Guarded>, (u64, Arc<Guarded>)>,
    /// What a list brought so far.
    list: HashMap<ObjectRef<Guarded>, Guarded>,
}

impl News {
    /// What an event tells that concerns us.
    pub fn of(&mut self, event: watcher::Event<Guarded>) -> Vec<Change> {
        match event {
            watcher::Event::Apply(object) => {
                self.seen(ObjectRef::from_obj(&object), object).into_iter().collect()
            }
            watcher::Event::Delete(object) => {
                let of = ObjectRef::from_obj(&object);
                let before = self.known.remove(&of).map(|(_, before)| before);
                vec![Change { of, forms: before.into_iter().chain([Arc::new(object)]).collect() }]
            }
            watcher::Event::Init => {
                self.list.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.list.insert(ObjectRef::from_obj(&object), object);
                Vec::new()
            }
            watcher::Event::InitDone => {
                let list = std::mem::take(&mut self.list);
                let gone = self.known.extract_if(|of, _| !list.contains_key(of));
                let mut changes: Vec<Change> =
                    gone.map(|(of, (_, before))| Change { of, forms: vec![before] }).collect();
                changes.extend(list.into_iter().filter_map(|(of, object)| self.seen(of, object)));
                changes
            }
        }
    }

    fn seen(&mut self, of: ObjectRef<Guarded>, object: Guarded) -> Option<Change> {
        let hash = wakes().hash_property(&object).unwrap_or_default();
        if self.known.get(&of).is_some_and(|(before, _)| *before == hash) {
            return None;
        }
        let now = Arc::new(object);
        let before = self.known.insert(of.clone(), (hash, now.clone())).map(|(_, before)| before);
        Some(Change { of, forms: before.into_iter().chain([now]).collect() })
    }
}

pub(super) fn wakes() -> impl Predicate<Guarded> {
    let uid = |object: &Guarded| object.meta().uid.as_ref().map(hash);
    let deletion = |object: &Guarded| object.meta().deletion_timestamp.as_ref().map(|_| 1);
    let held = |object: &Guarded| {
        let of = object.holder();
        let claims = of.status.as_ref().map(|status| &status.claims).filter(|claims| !claims.is_empty());
        let stands_back = claims::stands_back(of);
        (claims.is_some() || stands_back).then(|| hash(&(claims, stands_back)))
    };
    predicates::generation
        .combine(predicates::finalizers)
        .combine(predicates::annotations)
        .combine(deletion)
        .combine(uid)
        .combine(held)
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

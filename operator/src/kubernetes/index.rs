//! Objects of a cache by what they are looked for, so that a change or a pass costs what it concerns and not all there
//! is.
//!
//! # Assumptions
//! - It sees every event of a watch right before the cache does. In between it may name what the cache does not have
//!   yet, and leave out what is going.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

/// Of one kind. Shared.
pub struct Index<K: Resource<DynamicType = ()>, By> {
    by: fn(&K) -> Vec<By>,
    known: Arc<watch::Sender<Known<K, By>>>,
}

impl<K: Resource<DynamicType = ()>, By> Clone for Index<K, By> {
    fn clone(&self) -> Self {
        Self { by: self.by, known: self.known.clone() }
    }
}

struct Known<K: Resource<DynamicType = ()>, By> {
    found: HashMap<By, HashSet<ObjectRef<K>>>,
    by: HashMap<ObjectRef<K>, Vec<By>>,
    /// What a list brought so far: it counts at its end.
    list: HashMap<ObjectRef<K>, Vec<By>>,
}

impl<K: Resource<DynamicType = ()>, By: Clone + Eq + Hash> Index<K, By> {
    /// An empty one; `by` tells what an object is looked for by.
    pub fn new(by: fn(&K) -> Vec<By>) -> Self {
        let known = Known { found: HashMap::new(), by: HashMap::new(), list: HashMap::new() };
        Self { by, known: Arc::new(watch::Sender::new(known)) }
    }

    /// What a watch delivered.
    pub fn see(&self, event: &Event<K>) {
        self.known.send_modify(|known| match event {
            Event::Apply(object) => known.set(&ObjectRef::from_obj(object), (self.by)(object)),
            Event::Delete(object) => known.set(&ObjectRef::from_obj(object), Vec::new()),
            Event::Init => known.list.clear(),
            Event::InitApply(object) => {
                known.list.insert(ObjectRef::from_obj(object), (self.by)(object));
            }
            Event::InitDone => {
                let list = std::mem::take(&mut known.list);
                let gone: Vec<_> = known.by.keys().filter(|of| !list.contains_key(of)).cloned().collect();
                for of in gone {
                    known.set(&of, Vec::new());
                }
                for (of, by) in list {
                    known.set(&of, by);
                }
            }
        });
    }

    /// Is there one?
    pub fn has(&self, by: &By) -> bool {
        self.known.borrow().found.contains_key(by)
    }

    /// Those of `all` that are looked for by one of these.
    pub fn find<'a>(&self, all: &Store<K>, by: impl IntoIterator<Item = &'a By>) -> Vec<Arc<K>>
    where
        K: Clone + 'static,
        By: 'a,
    {
        let known = self.known.borrow();
        let found: HashSet<&ObjectRef<K>> =
            by.into_iter().filter_map(|by| known.found.get(by)).flatten().collect();
        found.into_iter().filter_map(|of| all.get(of)).collect()
    }
}

impl<K: Resource<DynamicType = ()>, By: Clone + Eq + Hash> Known<K, By> {
    /// An object is looked for by these, and by nothing else; none: it is gone.
    fn set(&mut self, of: &ObjectRef<K>, by: Vec<By>) {
        let before = if by.is_empty() { self.by.remove(of) } else { self.by.insert(of.clone(), by.clone()) };
        for before in before.unwrap_or_default().into_iter().filter(|before| !by.contains(before)) {
            if let Some(all) = self.found.get_mut(&before) {
                all.remove(of);
                if all.is_empty() {
                    self.found.remove(&before);
                }
            }
        }
        for by in by {
            self.found.entry(by).or_default().insert(of.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::runtime::reflector;

    use super::*;

    fn object(name: u8, of: &BTreeSet<u8>) -> ConfigMap {
        let data: Vec<String> = of.iter().map(|by| format!("'{by}': ''")).collect();
        let text =
            format!("{{ metadata: {{ name: n{name}, namespace: shop }}, data: {{ {} }} }}", data.join(", "));
        serde_saphyr::from_str(&text).unwrap()
    }

    fn by(object: &ConfigMap) -> Vec<String> {
        object.data.iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// Whatever a watch delivers, the index finds what a look through all of the cache finds.
    #[test]
    fn it_finds_what_a_look_at_all_of_them_finds() {
        let (mut events, mut hits) = (0, 0);
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (store, mut writer) = reflector::store::<ConfigMap>();
            let index = Index::new(by);
            for _ in 0..60 {
                let one = |random: &mut fastrand::Rng| {
                    let of = (0..random.u8(0..4)).map(|_| random.u8(0..6)).collect();
                    object(random.u8(0..8), &of)
                };
                let event = match random.u8(0..10) {
                    0..5 => Event::Apply(one(&mut random)),
                    5..7 => Event::Delete(one(&mut random)),
                    7 => Event::Init,
                    8 => Event::InitApply(one(&mut random)),
                    _ => Event::InitDone,
                };
                writer.apply_watcher_event(&event);
                index.see(&event);
                events += 1;
                for wanted in 0..6_u8 {
                    let wanted = wanted.to_string();
                    let has = |object: &ConfigMap| by(object).contains(&wanted);
                    let names = |all: Vec<Arc<ConfigMap>>| {
                        all.iter().map(|of| of.name_any()).collect::<BTreeSet<_>>()
                    };
                    let all = names(store.state_filter(has));
                    assert_eq!(names(index.find(&store, [&wanted])), all, "seed {seed}");
                    assert_eq!(index.has(&wanted), !all.is_empty(), "seed {seed}");
                    hits += all.len();
                }
            }
        }
        println!("index: {events} events, {hits} objects found");
    }
}

//! Who changed our route objects: a watch of the metadata of those with our label.
//!
//! # Caveats
//! - Where Traefik's kinds are not installed there is nothing to watch; it is tried again, less and less often.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use futures::{Stream, StreamExt};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::traefik::{MANAGED_BY, kind, owner_name};
use super::{MANAGER, watch as watches};
use crate::drift::{Drifted, Tell};

type Meta = PartialObjectMeta<DynamicObject>;

/// The objects that there are, as far as the watch has told.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<watch::Sender<Known>>);

impl Kept {
    /// Is none of these there? No, as long as that is not known.
    pub fn none_of(&self, namespace: &str, names: &[String]) -> bool {
        let known = self.0.borrow();
        known.listed && !names.iter().any(|name| known.all.contains_key(&Ident::new(namespace, name)))
    }

    fn take(&self, event: watcher::Event<Meta>) -> BTreeSet<Ident> {
        let mut changed = BTreeSet::new();
        self.0.send_modify(|known| changed = known.of(event));
        changed
    }
}

/// Follows them for ever. What is there at first is not told of: every resource is looked at anyway.
pub async fn follow_drift(client: Client, kept: Kept, tell: Tell) {
    let api = Api::<Meta>::all_with(client, &kind());
    let config = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    attend(watcher(api, config).default_backoff(), &kept, tell).await;
}

async fn attend(events: impl Stream<Item = watcher::Result<watcher::Event<Meta>>>, kept: &Kept, tell: Tell) {
    let mut events = std::pin::pin!(events);
    let mut interrupted = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                interrupted.clear();
                for of in kept.take(event) {
                    let _ = tell.send(Drifted::Of(of));
                }
            }
            Err(error) => {
                // Once: while Traefik is not installed this is so all the time.
                let why = watches::why("IngressRoute", &error);
                if why == interrupted {
                    continue;
                }
                let what = "IngressRoutes cannot be watched; the resync looks at them meanwhile";
                if watches::is_refused(&error) {
                    tracing::warn!("{what}: {why}");
                } else {
                    tracing::info!("{what}: {why}");
                }
                interrupted = why;
            }
        }
    }
}

/// What of an object says that somebody wrote it: its spec has another generation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    uid: Option<String>,
    generation: Option<i64>,
    owner: Option<Ident>,
}

impl Form {
    fn of(object: &Meta) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self {
            uid: object.uid(),
            generation: object.metadata.generation,
            owner: owner_name(&object.metadata).map(|name| Ident::new(namespace, name)),
        }
    }
}

/// The objects by namespace and name.
#[derive(Debug, Default)]
struct Known {
    all: HashMap<Ident, Form>,
    list: HashMap<Ident, Form>,
    listed: bool,
}

impl Known {
    /// Whose objects an event says to have changed: as they were and as they are.
    fn of(&mut self, event: watcher::Event<Meta>) -> BTreeSet<Ident> {
        let at = |object: &Meta| Ident::new(object.namespace().unwrap_or_default(), object.name_any());
        let mut changed = Vec::new();
        match event {
            watcher::Event::Apply(object) => {
                let form = Form::of(&object);
                let before = self.all.insert(at(&object), form.clone());
                if before.as_ref() != Some(&form) {
                    changed.extend(before.into_iter().chain([form]));
                }
            }
            watcher::Event::Delete(object) => {
                changed.extend(self.all.remove(&at(&object)).into_iter().chain([Form::of(&object)]));
            }
            watcher::Event::Init => self.list.clear(),
            watcher::Event::InitApply(object) => {
                self.list.insert(at(&object), Form::of(&object));
            }
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.all, std::mem::take(&mut self.list));
                if std::mem::replace(&mut self.listed, true) {
                    let gone = before.iter().filter(|(at, form)| self.all.get(at) != Some(form));
                    let new = self.all.iter().filter(|(at, form)| before.get(at) != Some(form));
                    changed.extend(gone.chain(new).map(|(_, form)| form.clone()));
                }
            }
        }
        changed.into_iter().filter_map(|form| form.owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, generation: u32, owner: Option<&str>) -> Meta {
        let owners = owner.map(|owner| {
            format!(
                "[{{ apiVersion: fusebox.dev/v1alpha1, kind: ResilientService, name: {owner}, uid: u-{owner} }}]"
            )
        });
        serde_saphyr::from_str(&format!(
            "
apiVersion: meta.k8s.io/v1
kind: PartialObjectMetadata
metadata: {{ name: {name}, namespace: shop, uid: {name}, generation: {generation}, ownerReferences: {} }}
",
            owners.unwrap_or_else(|| "[]".to_owned())
        ))
        .unwrap()
    }

    #[test]
    fn a_new_generation_and_an_end_are_told_of_the_owner() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut known = Known::default();
        let mut told = |event| known.of(event).into_iter().map(|of| of.to_string()).collect::<Vec<_>>();
        let route = |generation| object("route", generation, Some("user"));
        for event in [Init, InitApply(route(1)), InitApply(object("b", 1, Some("b"))), InitDone] {
            assert!(told(event).is_empty(), "what is there at first");
        }
        assert!(told(Apply(route(1))).is_empty(), "a label, a managed field");
        assert_eq!(told(Apply(route(2))), ["shop/user"]);
        assert_eq!(told(Apply(object("route", 2, None))), ["shop/user"], "it was taken from its owner");
        assert!(told(Apply(object("theirs", 1, None))).is_empty());
        assert_eq!(told(Apply(route(3))), ["shop/user"]);
        assert_eq!(told(Delete(route(3))), ["shop/user"]);
        // The watch was interrupted: one was edited, one removed, one came.
        told(Apply(route(4)));
        for event in [Init, InitApply(route(5)), InitApply(object("c", 1, Some("c")))] {
            assert!(told(event).is_empty());
        }
        assert_eq!(told(InitDone), ["shop/b", "shop/c", "shop/user"]);
    }

    #[test]
    fn what_is_not_there_is_known_once_there_was_a_list() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let kept = Kept::default();
        let none_of = |names: [&str; 2]| kept.none_of("shop", &names.map(str::to_owned));
        kept.take(Init);
        kept.take(InitApply(object("a", 1, Some("a"))));
        assert!(!none_of(["b", "c"]), "half a list is none");
        kept.take(InitDone);
        assert!(none_of(["b", "c"]) && !none_of(["a", "b"]));
        kept.take(Apply(object("b", 1, Some("b"))));
        assert!(!none_of(["b", "c"]));
        kept.take(Delete(object("b", 1, Some("b"))));
        assert!(none_of(["b", "c"]));
    }
}

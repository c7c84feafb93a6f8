//! Traefik's objects in Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use fusebox_policy::keys::Ident;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Crash, Faults};
use crate::ports::{Answer, Owner, Route, RouteError, RouteStore, RouteView};

/// `IngressRoutes`.
#[derive(Debug)]
pub struct RouteWorld {
    /// Its trouble.
    pub faults: Faults,
    /// By namespace and name.
    pub objects: Mutex<BTreeMap<Ident, RouteView>>,
    /// Are Traefik's kinds unknown?
    pub crds_missing: AtomicBool,
    /// The fields of a spec that others own, as they wrote them.
    fields: Mutex<BTreeMap<Ident, BTreeMap<String, Value>>>,
    /// The fields that we own, or whoever made the object.
    ours: Mutex<BTreeMap<Ident, BTreeSet<String>>>,
    /// Those that somebody took our label off: no watch of ours knows them.
    unlabelled: Mutex<BTreeSet<Ident>>,
}

impl RouteWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>) -> Self {
        Self {
            faults: Faults::of(crash),
            objects: Mutex::default(),
            crds_missing: AtomicBool::default(),
            fields: Mutex::default(),
            ours: Mutex::default(),
            unlabelled: Mutex::default(),
        }
    }

    /// The same for another process.
    pub fn copy(&self, crash: &Arc<Crash>) -> Self {
        Self {
            faults: Faults::of(crash),
            objects: Mutex::new(self.state()),
            crds_missing: AtomicBool::new(self.crds_missing.load(SeqCst)),
            fields: Mutex::new(self.fields.try_lock().unwrap().clone()),
            ours: Mutex::new(self.ours.try_lock().unwrap().clone()),
            unlabelled: Mutex::new(self.unlabelled.try_lock().unwrap().clone()),
        }
    }

    /// Somebody else creates one, if there is none.
    pub fn theirs(&self, at: &Ident, spec: Value) {
        let mut objects = self.objects.try_lock().unwrap();
        if !objects.contains_key(at) {
            self.own(at, &spec);
            objects.insert(at.clone(), RouteView { owner: None, spec });
        }
    }

    /// Somebody else applies a field of its spec and no other, by force.
    pub fn set_field(&self, at: &Ident, field: &str, value: Value) {
        let mut objects = self.objects.try_lock().unwrap();
        let Some(spec) = objects.get_mut(at).and_then(|there| there.spec.as_object_mut()) else { return };
        let mut ours = self.ours.try_lock().unwrap();
        let ours = ours.entry(at.clone()).or_default();
        if spec.get(field) != Some(&value) {
            ours.remove(field);
        }
        spec.insert(field.to_owned(), value.clone());
        let theirs = BTreeMap::from([(field.to_owned(), value)]);
        let before = self.fields.try_lock().unwrap().insert(at.clone(), theirs).unwrap_or_default();
        // What they applied before and do not apply now goes, unless we own it too.
        for (left, _) in before.into_iter().filter(|(left, _)| left != field && !ours.contains(left)) {
            spec.remove(&left);
        }
    }

    fn own(&self, at: &Ident, spec: &Value) {
        let fields = spec.as_object().into_iter().flatten().map(|(field, _)| field.clone());
        self.ours.try_lock().unwrap().insert(at.clone(), fields.collect());
    }

    /// Somebody takes our label off it.
    pub fn unlabel(&self, at: &Ident) {
        self.unlabelled.try_lock().unwrap().insert(at.clone());
    }

    /// Somebody deletes it.
    pub fn lose(&self, at: &Ident) {
        self.objects.try_lock().unwrap().remove(at);
        self.unlabelled.try_lock().unwrap().remove(at);
        self.fields.try_lock().unwrap().remove(at);
    }

    /// As server-side apply by force: what others own stays, unless we say something else.
    fn merged(&self, at: &Ident, mut spec: Value) -> Value {
        if let Some(theirs) = self.fields.try_lock().unwrap().get_mut(at) {
            theirs.retain(|field, value| spec.get(field).is_none_or(|ours| ours == value));
            for (field, value) in theirs {
                spec[field.as_str()] = value.clone();
            }
        }
        spec
    }

    /// All objects.
    pub fn state(&self) -> BTreeMap<Ident, RouteView> {
        self.objects.try_lock().unwrap().clone()
    }
}

impl RouteStore for RouteWorld {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        names: &'a [String],
        wanted: bool,
    ) -> Answer<'a, Result<BTreeMap<String, RouteView>, RouteError>> {
        Box::pin(async move {
            self.faults.read().await?;
            if self.crds_missing.load(SeqCst) {
                return Err(RouteError::CrdsMissing);
            }
            let objects = self.objects.try_lock().unwrap();
            let unlabelled = self.unlabelled.try_lock().unwrap();
            let found = |name: &String| {
                let at = Ident::new(namespace, name);
                let known = wanted || !unlabelled.contains(&at);
                Some((name.clone(), objects.get(&at).filter(|_| known)?.clone()))
            };
            Ok(names.iter().filter_map(found).collect())
        })
    }

    // As the adapter: what does not belong to `owner` is neither written nor removed.
    fn apply<'a>(&'a self, owner: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            let write = || {
                let mut objects = self.objects.try_lock().unwrap();
                let at = Ident::new(&owner.ident.namespace, &route.name);
                if objects.get(&at).is_some_and(|there| there.owner.as_ref() != Some(&owner.uid)) {
                    return Err(RouteError::Refused("belongs to somebody else".into()));
                }
                // Whoever deleted it deleted what others wrote into it.
                if !objects.contains_key(&at) {
                    self.fields.try_lock().unwrap().remove(&at);
                }
                self.own(&at, &route.spec);
                self.unlabelled.try_lock().unwrap().remove(&at);
                let spec = self.merged(&at, route.spec.clone());
                objects.insert(at, RouteView { owner: Some(owner.uid.clone()), spec });
                Ok(())
            };
            self.faults.write(write).await
        })
    }

    fn delete<'a>(&'a self, owner: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            let write = || {
                let mut objects = self.objects.try_lock().unwrap();
                let at = Ident::new(&owner.ident.namespace, name);
                if objects.get(&at).is_some_and(|there| there.owner.as_ref() == Some(&owner.uid)) {
                    objects.remove(&at);
                    self.unlabelled.try_lock().unwrap().remove(&at);
                }
                Ok(())
            };
            self.faults.write(write).await
        })
    }
}

//! What belongs to others, in every backend, some of it right beside ours.

use std::collections::BTreeMap;

use fusebox_policy::keys::Ident;
use fusebox_policy::wire::Claim;
use serde_json::json;

use super::place::Place;
use crate::model::{Entry, mark, shard_node};
use crate::ports::{NodeView, RouteView};

#[derive(Default)]
pub struct Foreign {
    entries: Vec<(String, Entry)>,
    keys: BTreeMap<String, String>,
    routes: BTreeMap<Ident, RouteView>,
}

impl Foreign {
    /// Beside a resource of `place`.
    pub fn of(place: &Place, beside: &Ident) -> Self {
        let theirs = |id: &str, meta: &[(&str, &str)]| Entry {
            id: format!("{}-{id}", place.name),
            name: "steady.service".into(),
            address: "192.0.2.1".into(),
            port: 1,
            tags: Vec::new(),
            meta: meta.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            passing: Some(true),
        };
        let node = shard_node(&place.name, beside);
        let entries = vec![
            (node.clone(), theirs("unmarked", &[])),
            (node, theirs("third", &[(mark::OWNER, "uid-1"), (mark::CLUSTER, "third")])),
        ];
        let claim = serde_json::to_string(&Claim { cluster: "third".into(), uid: "1".into() }).unwrap();
        let key = format!("{}foreign", place.key_prefix());
        let keys = [
            (key.clone(), "1".to_owned()),
            (format!("/fusebox/v1/claims/raw/{key}"), claim),
            (format!("/fusebox/v1/third/policy/{beside}"), "{}".to_owned()),
        ];
        let view = RouteView { owner: None, spec: json!({ "routes": [] }) };
        let routes = [(Ident::new(&beside.namespace, "not-ours"), view)].into();
        Self { entries, keys: keys.into(), routes }
    }

    /// Puts all of it there.
    pub fn put(&self, place: &Place) {
        let mut nodes = place.catalog.nodes.try_lock().unwrap();
        for (name, entry) in &self.entries {
            let node = nodes.entry(name.clone()).or_default();
            node.exists = true;
            node.entries.insert(entry.id.clone(), entry.clone());
        }
        let agent = NodeView { exists: true, foreign: true, ..NodeView::default() };
        nodes.insert("real-agent".into(), agent);
        place.store.keys.try_lock().unwrap().extend(self.keys.clone());
        place.routes.objects.try_lock().unwrap().extend(self.routes.clone());
    }

    /// What is not there any more as it was put.
    pub fn touched(&self, place: &Place) -> Option<String> {
        let (nodes, keys) = (place.catalog.nodes.try_lock().unwrap(), place.store.keys.try_lock().unwrap());
        let objects = place.routes.objects.try_lock().unwrap();
        let entries = self.entries.iter().filter(|(node, entry)| {
            nodes.get(node).and_then(|node| node.entries.get(&entry.id)) != Some(entry)
        });
        let mut gone = entries.map(|(_, entry)| entry.id.clone()).chain(
            self.keys.iter().filter(|(key, value)| keys.get(*key) != Some(value)).map(|(key, _)| key.clone()),
        );
        let routes = || self.routes.iter().find(|(at, view)| objects.get(at) != Some(view));
        gone.next().or_else(|| routes().map(|(at, _)| at.to_string()))
    }
}

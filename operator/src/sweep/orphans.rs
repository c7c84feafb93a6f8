//! Which of all that was found belongs to no resource. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fusebox_policy::keys::Ident;

use crate::model::{Entry, mark};
use crate::ports::{ClusterState, Document, Inventory, NodeView};

/// The resources that exist.
#[derive(Clone, Debug, Default)]
pub struct Live {
    uids: BTreeSet<String>,
    names: BTreeSet<Ident>,
}

impl Live {
    /// As the caches show it. Of a resource that cannot be decoded only the UID is known.
    pub fn cached(cluster: &dyn ClusterState) -> Self {
        Self { uids: cluster.uids(), names: cluster.names() }
    }

    /// And these.
    pub fn and(mut self, fresh: BTreeMap<Ident, String>) -> Self {
        for (name, uid) in fresh {
            self.uids.insert(uid);
            self.names.insert(name);
        }
        self
    }
}

/// What belongs to this cluster and to no resource.
#[derive(Debug, Default)]
pub struct Orphans<'a> {
    /// Entries in Consul with their node.
    pub entries: Vec<(&'a str, &'a Entry)>,
    /// Nodes in Consul with nothing on them.
    pub empty: Vec<&'a str>,
    /// Keys in etcd by the resource that they are named for.
    pub documents: BTreeMap<&'a Ident, Vec<&'a Document>>,
    /// Raw keys by the UID that claimed them.
    pub claims: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Orphans<'a> {
    /// Compares. `nodes` are those with a name of this cluster's. None: could not be read.
    pub fn find(
        cluster: &str,
        nodes: Option<&'a BTreeMap<String, NodeView>>,
        inventory: Option<&'a Inventory>,
        live: &Live,
    ) -> Self {
        let mut found = Self::default();
        for (name, node) in nodes.into_iter().flatten().filter(|(_, node)| node.exists && !node.foreign) {
            if node.entries.is_empty() {
                found.empty.push(name);
            }
            let dead = |entry: &&Entry| entry.owner(cluster).is_some_and(|uid| !live.uids.contains(uid));
            found.entries.extend(node.entries.values().filter(dead).map(|entry| (name.as_str(), entry)));
        }
        let documents = inventory.into_iter().flat_map(|inventory| &inventory.documents);
        for document in documents.filter(|document| !live.names.contains(&document.of)) {
            found.documents.entry(&document.of).or_default().push(document);
        }
        for (key, claim) in inventory.into_iter().flat_map(|inventory| &inventory.claims) {
            if claim.cluster == cluster && !claim.uid.is_empty() && !live.uids.contains(&claim.uid) {
                found.claims.entry(&claim.uid).or_default().push(key);
            }
        }
        found
    }

    /// Is there anything of which it matters who exists?
    pub fn has_owners(&self) -> bool {
        !(self.entries.is_empty() && self.documents.is_empty() && self.claims.is_empty())
    }

    /// Whose entries they were, for people.
    pub fn owners(&self, cluster: &str) -> Vec<String> {
        let name = |entry: &Entry| match entry.meta.get(mark::RESOURCE) {
            Some(name) => name.clone(),
            None => entry.owner(cluster).unwrap_or_default().to_owned(),
        };
        let all: BTreeSet<String> = self.entries.iter().map(|(_, entry)| name(entry)).collect();
        all.into_iter().collect()
    }
}

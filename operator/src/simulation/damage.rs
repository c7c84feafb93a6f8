//! What is in the backends is changed by somebody, lost, or older than it was.

use std::collections::BTreeMap;

use fusebox_policy::keys::{Ident, Keys};
use serde_json::json;

use super::place::Place;
use super::town::Town;
use super::wired::sync_nodes;
use crate::ports::NodeView;
use crate::world::EpochWorld;

/// Of Consul or of etcd.
pub struct Backup {
    nodes: BTreeMap<String, NodeView>,
    keys: BTreeMap<String, String>,
    epochs: Vec<EpochWorld>,
}

/// The stores that a [`Town`] has backups of.
pub const CONSUL: usize = 0;
pub const ETCD: usize = 1;

impl Town {
    /// Somebody changes what is ours.
    pub fn meddle(&mut self, at: usize) -> &'static str {
        match fastrand::u8(0..10) {
            0..3 => self.change_entry(at),
            3..6 => self.change_key(at),
            6..8 => self.change_route(at),
            8 => {
                self.places[at].lease.touch();
                "Lease touched"
            }
            _ => {
                self.places[at].lease.delete();
                "Lease deleted"
            }
        }
    }

    pub fn change_entry(&mut self, at: usize) -> &'static str {
        let place = &self.places[at];
        let mut nodes = place.catalog.nodes.try_lock().unwrap();
        let ours = nodes.values_mut().flat_map(|node| node.entries.iter_mut());
        let ours: Vec<_> = ours.filter(|(_, entry)| entry.is_in(&place.name)).collect();
        let n = fastrand::usize(0..=ours.len());
        let Some((id, entry)) = ours.into_iter().nth(n) else { return "nothing" };
        match fastrand::u8(0..3) {
            0 => entry.passing = Some(false),
            1 => entry.tags.push("somebody".into()),
            _ => {
                let id = id.clone();
                nodes.values_mut().for_each(|node| drop(node.entries.remove(&id)));
            }
        }
        drop(nodes);
        sync_nodes(place);
        "an entry in Consul changed by somebody"
    }

    pub fn change_key(&mut self, at: usize) -> &'static str {
        let place = &self.places[at];
        let keys = Keys::new(&place.name);
        let prefix = ["policy", "config", "fleet"][fastrand::usize(0..3)];
        let prefix = format!("{}{prefix}/", keys.prefix());
        let mut all = place.store.keys.try_lock().unwrap();
        let ours: Vec<String> = all.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        let n = fastrand::usize(0..=ours.len());
        let Some(key) = ours.into_iter().nth(n) else { return "nothing" };
        if fastrand::bool() {
            all.remove(&key);
        } else {
            all.insert(key, "garbage".into());
        }
        "a key in etcd changed by somebody"
    }

    pub fn change_route(&mut self, at: usize) -> &'static str {
        let mut objects = self.places[at].routes.objects.try_lock().unwrap();
        let ours: Vec<Ident> =
            objects.iter().filter(|(_, v)| v.owner.is_some()).map(|(at, _)| at.clone()).collect();
        let n = fastrand::usize(0..=ours.len());
        let Some(at) = ours.into_iter().nth(n) else { return "nothing" };
        if fastrand::bool() {
            objects.remove(&at);
        } else {
            objects.get_mut(&at).unwrap().spec["routes"] = json!([]);
        }
        "a route changed by somebody"
    }

    /// A store loses what it holds, or what it got since a backup.
    pub fn catastrophe(&mut self) -> &'static str {
        let store = fastrand::usize(0..2);
        match fastrand::u8(0..5) {
            0 | 1 => self.back_up(store),
            2 if self.backups[store].is_none() => self.back_up(store),
            2 => self.restore(store),
            3 => self.wipe(store),
            _ => self.lose_epoch(store),
        }
    }

    /// A store is replaced by an empty one.
    pub fn wipe(&mut self, store: usize) -> &'static str {
        let of_consul = store == CONSUL;
        for place in &self.places {
            if of_consul {
                place.catalog.nodes.try_lock().unwrap().clear();
                place.catalog.epoch.set(None);
            } else {
                place.store.keys.try_lock().unwrap().clear();
                place.store.epoch.set(None);
            }
        }
        self.harmed(store);
        if of_consul { "Consul wiped" } else { "etcd wiped" }
    }

    pub fn lose_epoch(&mut self, store: usize) -> &'static str {
        let of_consul = store == CONSUL;
        for place in &self.places {
            let epoch = if of_consul { &place.catalog.epoch } else { &place.store.epoch };
            epoch.set(None);
        }
        self.harmed(store);
        if of_consul { "Consul's epoch deleted" } else { "etcd's epoch deleted" }
    }

    /// A store is as it was at its backup, if there is one.
    pub fn restore(&mut self, store: usize) -> &'static str {
        let of_consul = store == CONSUL;
        let Some(backup) = self.backups[store].take() else { return "nothing" };
        for (place, epoch) in self.places.iter().zip(&backup.epochs) {
            if of_consul {
                place.catalog.nodes.try_lock().unwrap().clone_from(&backup.nodes);
                place.catalog.epoch.restore(epoch);
            } else {
                place.store.keys.try_lock().unwrap().clone_from(&backup.keys);
                place.store.epoch.restore(epoch);
            }
            let mut judge = place.judge.try_lock().unwrap();
            judge.restored(place, store, epoch.epoch().as_ref());
        }
        self.backups[store] = Some(backup);
        self.harmed(store);
        if of_consul { "Consul restored" } else { "etcd restored" }
    }

    /// What else becomes of it when a store is not what it was.
    fn harmed(&self, store: usize) {
        for place in &self.places {
            place.judge.try_lock().unwrap().foreign.put(place);
            if store == CONSUL {
                place.sessions.wipe();
            }
            sync_nodes(place);
        }
    }

    pub fn back_up(&mut self, store: usize) -> &'static str {
        let place = &self.places[0];
        let epoch = |place: &Place| {
            if store == CONSUL { place.catalog.epoch.copy() } else { place.store.epoch.copy() }
        };
        self.backups[store] = Some(Backup {
            nodes: place.catalog.state(),
            keys: place.store.state(),
            epochs: self.places.iter().map(|place| epoch(place)).collect(),
        });
        "backup"
    }
}

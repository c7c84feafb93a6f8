//! What the operator asked of its servers, and what it holds.

use std::collections::BTreeMap;
use std::fmt;

use fusebox_processes::{Server, Site};

/// Requests by server and by what they are.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    by: BTreeMap<&'static str, usize>,
    /// Writes of each status.
    statuses: BTreeMap<String, usize>,
    writes: BTreeMap<String, usize>,
}

impl Tally {
    /// Since the last aim.
    pub fn of(site: &Site) -> Self {
        let mut tally = Self::default();
        for (server, method, path) in site.wires.requests() {
            let what = match server {
                Server::Kubernetes if path.contains("watch=") || path.contains("/leases") => {
                    "kubernetes watch, lease"
                }
                Server::Kubernetes if path.contains("/events") => "kubernetes events",
                Server::Kubernetes if path.contains("/status") => {
                    let name = path.split('?').next().unwrap_or_default();
                    *tally.statuses.entry(name.to_owned()).or_default() += 1;
                    "kubernetes status writes"
                }
                Server::Kubernetes if method != "GET" => "kubernetes writes",
                Server::Kubernetes => "kubernetes reads",
                Server::Consul if path.contains("index=") => "consul blocking queries",
                Server::Consul if method == "PUT" && path.starts_with("/v1/txn") => "consul txns",
                Server::Consul if method == "PUT" => "consul writes and renewals",
                Server::Consul => "consul reads",
                Server::Etcd if path.contains("KV/") => "etcd txns",
                Server::Etcd => "etcd streams",
            };
            *tally.by.entry(what).or_default() += 1;
        }
        for write in site.wires.writes() {
            *tally.writes.entry(write.what).or_default() += 1;
        }
        tally
    }

    /// How many requests of these kinds.
    pub fn count(&self, kinds: &[&str]) -> usize {
        kinds.iter().filter_map(|kind| self.by.get(kind)).sum()
    }

    /// What was written for the resources: neither the dead man's sessions and checks nor an epoch.
    pub fn work(&self) -> Vec<&str> {
        let beside = ["PUT session/", "PUT catalog/", "PUT kv/fusebox", "put epoch"];
        let all = self.writes.keys().map(String::as_str);
        all.filter(|what| !beside.iter().any(|begin| what.starts_with(begin))).collect()
    }

    /// No status was written more often than this.
    pub fn each_resource_at_most(&self, what: &str, most: usize) {
        let worst = self.statuses.iter().max_by_key(|(_, count)| **count);
        if let Some((name, count)) = worst {
            assert!(*count <= most, "{what}: {count} of {name}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.by.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(f, "{}; writes: {:?}", kinds.join(", "), self.writes)
    }
}

/// What a process holds now and held at most, in MiB, and how long it computed.
pub fn memory(pid: u32) -> String {
    let (rest, peak) = held(pid);
    let (used, _) = fusebox_processes::etcd::weight(&pid.to_string());
    let (whole, part) = (used / 100, used % 100);
    format!("memory {rest} MiB, at most {peak} MiB, {whole}.{part:02} s of processor time")
}

/// Now, and at most, in MiB.
pub fn held(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"));
        line.unwrap().trim().parse::<u64>().unwrap() / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

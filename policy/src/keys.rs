//! The key schema in etcd.
//!
//! ```text
//! /fusebox/v1/<cluster>/policy/<namespace>/<name>              one policy document
//! /fusebox/v1/<cluster>/config/<namespace>/<name>              spec.config.document as plain JSON
//! /fusebox/v1/<cluster>/fleet/<namespace>/<name>               how many instances share its rate limits
//! /fusebox/v1/<cluster>/reports/<namespace>/<name>/<instance>  one instance's report, under its lease
//! /fusebox/v1/<cluster>/raw/<namespace>/<name>                 which raw keys a resource holds
//! /fusebox/v1/<cluster>/epoch                                  the fence of every write
//! /fusebox/v1/claims/raw/<key>                                 who holds a raw key, of all clusters
//! ```
//! Kubernetes names hold no slash, so a namespace's keys are one prefix: what a role is granted
//! ([`access`](crate::access)).

/// Everything of ours starts here; a raw key never may.
pub const ROOT: &str = "/fusebox/v1/";

/// A resource by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
}

impl Ident {
    /// An identity from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Ident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl std::str::FromStr for Ident {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(format!("{text:?} is not <namespace>/<name>")),
        }
    }
}

/// The keys of one Fusebox installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key of ours holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A policy document.
    Policy(Ident),
    /// A config document.
    Config(Ident),
    /// How many instances there are.
    Fleet(Ident),
    /// An instance's report: the resource and the instance.
    Report(Ident, String),
    /// The list of a resource's raw keys.
    Raw(Ident),
    /// The epoch.
    Epoch,
}

impl Keys {
    /// The keys of `cluster`: the name that the operator's chart gives this cluster, unique among all that
    /// share the etcd.
    pub fn new(cluster: &str) -> Self {
        Self { prefix: format!("{ROOT}{cluster}/") }
    }

    /// The prefix of everything this cluster keeps.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        self.prefix.strip_prefix(ROOT).unwrap_or_default().trim_end_matches('/')
    }

    /// The policy document of a resource.
    pub fn policy(&self, of: &Ident) -> String {
        format!("{}policy/{of}", self.prefix)
    }

    /// The config document of a resource.
    pub fn config(&self, of: &Ident) -> String {
        format!("{}config/{of}", self.prefix)
    }

    /// How many instances share the rate limits of a resource; there only while it has one of scope Service.
    pub fn fleet(&self, of: &Ident) -> String {
        format!("{}fleet/{of}", self.prefix)
    }

    /// The report of one instance: its pod UID, or its address where it has none.
    pub fn report(&self, of: &Ident, instance: &str) -> String {
        format!("{}{instance}", self.reports(of))
    }

    /// The prefix of a resource's reports.
    pub fn reports(&self, of: &Ident) -> String {
        format!("{}reports/{of}/", self.prefix)
    }

    /// The list of raw keys that a resource holds.
    pub fn raw(&self, of: &Ident) -> String {
        format!("{}raw/{of}", self.prefix)
    }

    /// The epoch that fences every write of an operator.
    pub fn epoch(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    /// The claim on a raw key, shared by all clusters of an etcd.
    pub fn raw_claim(raw: &str) -> String {
        format!("{ROOT}claims/raw/{raw}")
    }

    /// What `key` holds; None for keys that are not this cluster's.
    pub fn parse(&self, key: &str) -> Option<Key> {
        let (kind, rest) = match key.strip_prefix(&self.prefix)? {
            "epoch" => return Some(Key::Epoch),
            rest => rest.split_once('/')?,
        };
        let ident = |text: &str| text.parse::<Ident>().ok();
        match kind {
            "policy" => ident(rest).map(Key::Policy),
            "config" => ident(rest).map(Key::Config),
            "fleet" => ident(rest).map(Key::Fleet),
            "raw" => ident(rest).map(Key::Raw),
            "reports" => {
                let (of, instance) = rest.rsplit_once('/')?;
                (!instance.is_empty()).then(|| ident(of).map(|of| Key::Report(of, instance.to_owned())))?
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back() {
        let (keys, of) = (Keys::new("demo"), Ident::new("shop", "user"));
        for (key, kind) in [
            (keys.policy(&of), Key::Policy(of.clone())),
            (keys.config(&of), Key::Config(of.clone())),
            (keys.fleet(&of), Key::Fleet(of.clone())),
            (keys.report(&of, "uid-1"), Key::Report(of.clone(), "uid-1".into())),
            (keys.raw(&of), Key::Raw(of.clone())),
            (keys.epoch(), Key::Epoch),
        ] {
            assert_eq!(keys.parse(&key), Some(kind), "{key}");
        }
        assert_eq!(keys.policy(&of), "/fusebox/v1/demo/policy/shop/user");
        assert_eq!(keys.cluster(), "demo");
    }

    #[test]
    fn foreign_and_malformed_keys_are_nothing() {
        let keys = Keys::new("demo");
        for key in [
            "/fusebox/v1/other/epoch",
            "/fusebox/v1/demo/policy/shop",
            "/fusebox/v1/demo/reports/shop/user/",
            "x",
        ] {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }
}

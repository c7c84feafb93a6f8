//! Who may do what in etcd: the one definition that docs, tests and the maker of roles share.
//!
//! A role and its user have the same name: `fusebox.<cluster>` for the operator, `fusebox.<cluster>.<namespace>`
//! for the services of a namespace. No part of it may hold a dot, so no two are the same.
//!
//! # Guarantees
//! - A grant ends with a slash, or is a raw-key prefix that the platform gave: a namespace never reaches into one
//!   whose name begins like its own.
//! - No raw-key prefix reaches Fusebox's own keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::keys::Keys;

/// What a role may do under a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read and watch.
    Read,
    /// Read, watch, write and delete.
    ReadWrite,
}

/// As etcdctl calls it.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::ReadWrite => "readwrite",
        })
    }
}

/// One right: every key that begins with `prefix`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// How the keys begin; never empty.
    pub prefix: String,
    /// What may be done with them.
    pub access: Access,
}

/// A role of etcd and the user that has it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The name of both.
    pub name: String,
    /// All that it may do.
    pub grants: Vec<Grant>,
}

/// The raw-key prefixes that the platform allows each namespace.
pub type AllowedPrefixes = BTreeMap<String, Vec<String>>;

/// Why there can be no such role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Its keys would not be one prefix.
    #[error("{0:?} is no name of a namespace: lower-case letters, digits and hyphens")]
    Namespace(String),
    /// It reaches what is not the platform's to give.
    #[error(
        "the raw-key prefix {0:?} is empty or reaches keys under /fusebox/: name a longer one, like \"service.\""
    )]
    Prefix(String),
}

/// What no raw key begins with.
const OWN: &str = "/fusebox/";

impl Keys {
    /// The services of a namespace: they read what is published for it and the raw keys that it may declare, and
    /// keep its reports. An instance reads its own report back to notice that it vanished, hence read there too.
    pub fn namespace_role(&self, namespace: &str, allowed: &AllowedPrefixes) -> Result<Role, AccessError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if namespace.is_empty() || !namespace.chars().all(good) {
            return Err(AccessError::Namespace(namespace.to_owned()));
        }
        let own =
            |kind: &str, access| Grant { prefix: format!("{}{kind}/{namespace}/", self.prefix()), access };
        let mut grants = vec![
            own("policy", Access::Read),
            own("config", Access::Read),
            own("fleet", Access::Read),
            own("reports", Access::ReadWrite),
        ];
        let raw = checked(allowed.get(namespace).into_iter().flatten())?;
        grants.extend(raw.into_iter().map(|prefix| Grant { prefix, access: Access::Read }));
        Ok(Role { name: format!("{}.{namespace}", self.operator()), grants })
    }

    /// The operator: it keeps its cluster's keys, the raw keys that the platform allows, and the claims on those.
    pub fn operator_role(&self, allowed: &AllowedPrefixes) -> Result<Role, AccessError> {
        let raw = checked(allowed.values().flatten())?;
        let claims = raw.iter().map(|prefix| Self::raw_claim(prefix));
        let prefixes = [self.prefix().to_owned()].into_iter().chain(claims).chain(raw.clone());
        let grants = prefixes.map(|prefix| Grant { prefix, access: Access::ReadWrite }).collect();
        Ok(Role { name: self.operator(), grants })
    }

    fn operator(&self) -> String {
        format!("fusebox.{}", self.cluster())
    }
}

/// Each once, and none that another of them covers.
fn checked<'a>(prefixes: impl Iterator<Item = &'a String>) -> Result<Vec<String>, AccessError> {
    let all: BTreeSet<&String> = prefixes.collect();
    if let Some(wrong) = all.iter().find(|prefix| OWN.starts_with(prefix.as_str()) || prefix.starts_with(OWN))
    {
        return Err(AccessError::Prefix((*wrong).clone()));
    }
    let covered = |prefix: &String| all.iter().any(|other| *other != prefix && prefix.starts_with(*other));
    Ok(all.iter().filter(|prefix| !covered(prefix)).map(|prefix| (*prefix).clone()).collect())
}

impl Role {
    /// The commands that make it, and a user whose password is in the file `<name>.password`.
    pub fn etcdctl(&self) -> String {
        let name = &self.name;
        let mut lines = vec![format!("etcdctl role add {name}")];
        lines.extend(self.grants.iter().map(|grant| {
            let prefix = quoted(&grant.prefix);
            format!("etcdctl role grant-permission {name} --prefix {} {prefix}", grant.access)
        }));
        lines.push(format!("etcdctl user add {name} --interactive=false <{name}.password"));
        lines.push(format!("etcdctl user grant-role {name} {name}"));
        lines.join("\n") + "\n"
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.-_:".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Ident, ROOT};

    fn allowed(list: &[(&str, &[&str])]) -> AllowedPrefixes {
        let owned = |prefixes: &[&str]| prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        list.iter().map(|(namespace, prefixes)| ((*namespace).to_owned(), owned(prefixes))).collect()
    }

    fn may(role: &Role, key: &str, access: Access) -> bool {
        role.grants.iter().any(|grant| key.starts_with(&grant.prefix) && grant.access >= access)
    }

    #[test]
    fn the_services_of_a_namespace() {
        let raw = allowed(&[("shop", &["service.user."]), ("other", &["x."])]);
        let role = Keys::new("demo").namespace_role("shop", &raw).unwrap();
        assert_eq!(role.name, "fusebox.demo.shop");
        let grants: Vec<_> =
            role.grants.iter().map(|grant| format!("{} {}", grant.access, grant.prefix)).collect();
        assert_eq!(
            grants,
            [
                "read /fusebox/v1/demo/policy/shop/",
                "read /fusebox/v1/demo/config/shop/",
                "read /fusebox/v1/demo/fleet/shop/",
                "readwrite /fusebox/v1/demo/reports/shop/",
                "read service.user.",
            ]
        );
    }

    #[test]
    fn the_operator() {
        let raw = allowed(&[("shop", &["service.user.", "service."]), ("other", &["x."])]);
        let role = Keys::new("demo").operator_role(&raw).unwrap();
        assert_eq!(role.name, "fusebox.demo");
        let prefixes: Vec<_> = role.grants.iter().map(|grant| grant.prefix.as_str()).collect();
        assert_eq!(
            prefixes,
            [
                "/fusebox/v1/demo/",
                "/fusebox/v1/claims/raw/service.",
                "/fusebox/v1/claims/raw/x.",
                "service.",
                "x."
            ]
        );
        assert!(role.grants.iter().all(|grant| grant.access == Access::ReadWrite));
    }

    proptest! {
        /// Whatever the names, and also where one begins like another.
        #[test]
        fn a_namespace_reaches_only_what_is_its_own(
            mine in "[a-z]{1,3}(-[a-z0-9])?", theirs in "[a-z]{1,3}(-[a-z0-9])?",
            cluster in "[a-z]{1,2}(-[a-z])?", other in "[a-z]{1,2}(-[a-z])?",
        ) {
            let of = |cluster: &str, namespace: &str| {
                let (keys, ident) = (Keys::new(cluster), Ident::new(namespace, "n"));
                let read = [keys.policy(&ident), keys.config(&ident), keys.fleet(&ident)];
                (read, keys.report(&ident, "i"), [keys.epoch(), keys.raw(&ident), Keys::raw_claim(namespace)])
            };
            let role = Keys::new(&cluster).namespace_role(&mine, &AllowedPrefixes::new()).unwrap();
            let (read, report, nobodys) = of(&cluster, &mine);
            prop_assert!(may(&role, &report, Access::ReadWrite));
            for key in &read {
                prop_assert!(may(&role, key, Access::Read) && !may(&role, key, Access::ReadWrite), "{key}");
            }
            for key in nobodys {
                prop_assert!(!may(&role, &key, Access::Read), "{key}");
            }
            for (cluster, namespace) in [(&cluster, &theirs), (&other, &mine), (&other, &theirs)] {
                let (read, report, nobodys) = of(cluster, namespace);
                let same = role.name == format!("fusebox.{cluster}.{namespace}");
                for key in read.iter().chain([&report]).chain(&nobodys).filter(|_| !same) {
                    prop_assert!(!may(&role, key, Access::Read), "{key}");
                }
            }
        }

        #[test]
        fn the_operator_reaches_no_other_cluster(cluster in "[a-z]{1,2}(-[a-z])?", other in "[a-z]{1,2}(-[a-z])?") {
            prop_assume!(cluster != other);
            let role = Keys::new(&cluster).operator_role(&allowed(&[("shop", &["x."])])).unwrap();
            let keys = Keys::new(&other);
            for key in [keys.epoch(), keys.policy(&Ident::new("shop", "user")), Keys::raw_claim("y"), "y".into()] {
                prop_assert!(!may(&role, &key, Access::Read), "{key}");
            }
            prop_assert!(may(&role, "x.y", Access::ReadWrite) && may(&role, &Keys::raw_claim("x.y"), Access::ReadWrite));
        }
    }

    #[test]
    fn what_would_reach_too_far_is_refused() {
        let keys = Keys::new("demo");
        for prefix in ["", "/", "/fuse", "/fusebox/", ROOT, "/fusebox/v1/demo/epoch"] {
            let raw = allowed(&[("shop", &[prefix])]);
            assert_eq!(keys.namespace_role("shop", &raw), Err(AccessError::Prefix(prefix.into())));
            assert_eq!(keys.operator_role(&raw), Err(AccessError::Prefix(prefix.into())));
        }
        for namespace in ["", "a/b", "shop/", "A", "a.b"] {
            let none = AllowedPrefixes::new();
            assert_eq!(keys.namespace_role(namespace, &none), Err(AccessError::Namespace(namespace.into())));
        }
    }

    /// What a platform engineer pastes is what the code makes.
    #[test]
    fn the_page_shows_these_commands() {
        let page = include_str!("../../docs/etcd.md");
        let (keys, raw) = (Keys::new("demo"), allowed(&[("shop", &["service.user."])]));
        for role in [keys.operator_role(&raw).unwrap(), keys.namespace_role("shop", &raw).unwrap()] {
            let block = format!("```sh\n{}```\n", role.etcdctl());
            assert!(page.contains(&block), "docs/etcd.md does not show exactly\n{block}");
        }
    }

    #[test]
    fn a_prefix_is_quoted_for_the_shell() {
        let role =
            Role { name: "r".into(), grants: vec![Grant { prefix: "a b'c".into(), access: Access::Read }] };
        assert!(role.etcdctl().contains(r"--prefix read 'a b'\''c'"), "{}", role.etcdctl());
    }
}

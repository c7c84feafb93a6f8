//! Who holds what: a Service, a Consul name, a host, a host and path, a raw key belong to one resource.
//!
//! Computed anew from all cached resources. A resource claims what its spec asks for and holds what its
//! status says: what was accepted, and what of an earlier generation is still applied. Who holds keeps;
//! among others the oldest has it, by creation and then by UID. Who only asks and cannot be accepted for now, for
//! its own content or since another one holds something that it asks for, keeps nobody waiting. A claim ends with
//! its resource, or when an edit that drops it was applied. A resource that is being deleted holds until it is
//! gone, since what it applied is still there.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use fusebox_policy::v1alpha1::{ResilientService, RouteSpec};
use kube::ResourceExt;

use crate::reconcile::conditions::{reasons, types};

/// The most claims that a status lists.
const MAX_HELD: usize = 256;

/// Something that only one resource may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A Service of the namespace.
    Service(String),
    /// A name in Consul, in lower case: Consul finds `User` by `user`.
    ConsulName(String),
    /// Requests for a host and a path under it.
    Route(String, String),
    /// A host; belongs to a namespace.
    Host(String),
    /// A raw etcd key.
    RawKey(String),
}

impl Claim {
    /// Can only one of two resources have it, `beside`: of one namespace?
    pub fn is_exclusive(&self, beside: bool) -> bool {
        match self {
            Self::Service(_) => beside,
            Self::Host(_) => !beside,
            Self::ConsulName(_) | Self::Route(..) | Self::RawKey(_) => true,
        }
    }
}

/// As a status lists it.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service/{name}"),
            Self::ConsulName(name) => write!(f, "consul/{name}"),
            Self::Route(host, path) => write!(f, "route/{host}{path}"),
            Self::Host(host) => write!(f, "host/{host}"),
            Self::RawKey(key) => write!(f, "raw/{key}"),
        }
    }
}

impl FromStr for Claim {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, what) = text.split_once('/').ok_or(())?;
        let name = what.to_owned();
        Ok(match kind {
            "service" => Self::Service(name),
            "consul" => Self::ConsulName(name.to_ascii_lowercase()),
            "route" => {
                let (host, path) = what.split_at(what.find('/').unwrap_or(what.len()));
                Self::Route(host.to_owned(), path.to_owned())
            }
            "host" => Self::Host(name),
            "raw" => Self::RawKey(name),
            _ => return Err(()),
        })
    }
}

/// A claim that another resource has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What.
    pub claim: Claim,
    /// The UID of the resource that has it.
    pub by: String,
    /// Its name, if it is of the same namespace.
    pub holder: Option<String>,
    /// Does it hold it, or is it only older?
    pub held: bool,
}

impl Lost {
    /// For a person. Another namespace's resource is not named.
    pub fn message(&self) -> String {
        let (what, way_out) = match &self.claim {
            Claim::Service(name) => (format!("Service {name}"), "remove one of the two"),
            Claim::ConsulName(name) => {
                (format!("the Consul name {name}"), "choose another spec.consul.serviceName")
            }
            Claim::Route(host, path) => {
                (format!("the route {host}{path}"), "choose another host or pathPrefix")
            }
            Claim::Host(host) => (format!("the host {host}"), "choose another host"),
            Claim::RawKey(key) => (format!("the etcd key {key}"), "choose another key"),
        };
        let holder = match (&self.holder, self.held) {
            (Some(name), true) => format!("ResilientService {name}, which holds it"),
            (Some(name), false) => format!("ResilientService {name}, which is older"),
            (None, true) => "a resource of another namespace, which holds it".to_owned(),
            (None, false) => "an older resource of another namespace".to_owned(),
        };
        format!("{what} belongs to {holder}: {way_out}")
    }
}

/// The path of a route as whole elements: no slash at its end, empty for every path.
pub fn path_of(route: &RouteSpec) -> String {
    route.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/').to_owned()
}

/// The name that a resource registers in Consul.
pub fn consul_name(resource: &ResilientService) -> Option<&str> {
    let consul = resource.spec.consul.as_ref()?;
    Some(consul.service_name.as_deref().unwrap_or(&resource.spec.service.name))
}

/// What `me` asks for or holds and another of `all` has. What those of the UIDs `waiting` only ask for, they do not
/// have.
pub fn lost<'a>(
    me: &ResilientService,
    all: impl IntoIterator<Item = &'a ResilientService>,
    waiting: &BTreeSet<String>,
) -> Vec<Lost> {
    let others = all.into_iter().filter(|other| other.uid() != me.uid());
    let others: Vec<Claimant> = others
        .map(|other| {
            let waits = other.uid().is_some_and(|uid| waiting.contains(&uid));
            let asked = if waits { Vec::new() } else { asked(other) };
            Claimant { of: other, asked, held: held(other) }
        })
        .collect();
    let me = Claimant::new(me);
    let lost = |claim: &Claim| {
        let rivals = others.iter().filter(|other| other.has(claim) && me.may_meet(other, claim));
        let first = rivals.chain([&me]).min_by_key(|one| one.rank(claim))?;
        me.collides(first, claim).then(|| Lost {
            claim: claim.clone(),
            by: first.of.uid().unwrap_or_default(),
            holder: me.is_beside(first).then(|| first.of.name_any()),
            held: first.held.contains(claim),
        })
    };
    me.all().into_iter().filter_map(lost).collect()
}

/// Was it refused, as it is now, for its own content? Then it waits for an edit of its own.
pub fn stands_back(of: &ResilientService) -> bool {
    let conditions = of.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.type_ == types::ACCEPTED).any(|condition| {
        condition.status == "False"
            && condition.reason != reasons::CONFLICT
            && condition.observed_generation == of.metadata.generation
    })
}

/// Does another of `all` hold something that it asks for? Then it has to wait until that one lets go.
pub fn is_held_off<'a>(one: &ResilientService, all: impl IntoIterator<Item = &'a ResilientService>) -> bool {
    let asked = asked(one);
    lost(one, all, &BTreeSet::new()).iter().any(|lost| lost.held && asked.contains(&lost.claim))
}

/// Is there something that both ask for or hold and only one may have? Then a change of one may concern the
/// other.
pub fn share(a: &ResilientService, b: &ResilientService) -> bool {
    a.uid() != b.uid() && {
        let (a, b) = (Claimant::new(a), Claimant::new(b));
        a.all().into_iter().any(|claim| b.has(claim) && a.collides(&b, claim))
    }
}

/// What the spec of a resource asks for.
pub fn asked(of: &ResilientService) -> Vec<Claim> {
    let spec = &of.spec;
    let mut all = vec![Claim::Service(spec.service.name.clone())];
    all.extend(consul_name(of).map(|name| Claim::ConsulName(name.to_ascii_lowercase())));
    for route in spec.gateway.iter().flat_map(|gateway| &gateway.routes) {
        let host = Claim::Host(route.host.clone());
        if !all.contains(&host) {
            all.push(host);
        }
        all.push(Claim::Route(route.host.clone(), path_of(route)));
    }
    all.extend(spec.config.iter().flat_map(|c| c.etcd_keys.keys()).map(|key| Claim::RawKey(key.clone())));
    all
}

/// What the status of a resource says that it holds.
pub fn held(of: &ResilientService) -> Vec<Claim> {
    let claims = of.status.iter().flat_map(|status| &status.claims);
    claims.filter_map(|claim| claim.parse().ok()).collect()
}

/// As a status lists them: each once, the first ones if there are too many.
pub fn listed(claims: impl IntoIterator<Item = Claim>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let claims = claims.into_iter().filter(|claim| known.insert(claim.clone()));
    claims.take(MAX_HELD).map(|claim| claim.to_string()).collect()
}

/// A resource and its claims.
struct Claimant<'a> {
    of: &'a ResilientService,
    asked: Vec<Claim>,
    held: Vec<Claim>,
}

impl<'a> Claimant<'a> {
    fn new(of: &'a ResilientService) -> Self {
        Self { of, asked: asked(of), held: held(of) }
    }

    fn all(&self) -> BTreeSet<&Claim> {
        self.asked.iter().chain(&self.held).collect()
    }

    fn has(&self, claim: &Claim) -> bool {
        self.asked.contains(claim) || self.held.contains(claim)
    }

    fn is_beside(&self, other: &Self) -> bool {
        self.of.namespace() == other.of.namespace()
    }

    /// A Service's name means another Service in another namespace.
    fn may_meet(&self, other: &Self, claim: &Claim) -> bool {
        !matches!(claim, Claim::Service(_)) || self.is_beside(other)
    }

    /// Can not both have it?
    fn collides(&self, other: &Self, claim: &Claim) -> bool {
        self.of.uid() != other.of.uid() && claim.is_exclusive(self.is_beside(other))
    }

    /// The first has it: who holds it, then the oldest.
    fn rank(&self, claim: &Claim) -> impl Ord + use<> {
        let age = self.of.creation_timestamp().map(|time| time.0);
        (Reverse(self.held.contains(claim)), age, self.of.uid())
    }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::v1alpha1::ResilientServiceStatus;

    use super::*;

    fn resource(namespace: &str, name: &str, second: u8, spec: &str) -> ResilientService {
        serde_saphyr::from_str(&format!(
            "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: {{ name: {name}, namespace: {namespace}, uid: uid-{namespace}-{name}, creationTimestamp: '2026-11-24T21:00:{second:02}Z' }}
spec: {spec}
"
        ))
        .unwrap()
    }

    fn lost_to(me: &ResilientService, all: &[&ResilientService]) -> Vec<Lost> {
        lost(me, all.iter().copied(), &BTreeSet::new())
    }

    fn messages(me: &ResilientService, all: &[&ResilientService]) -> Vec<String> {
        lost_to(me, all).iter().map(Lost::message).collect()
    }

    #[test]
    fn the_oldest_holds_and_the_younger_is_told_by_whom() {
        let old = resource("shop", "a", 1, "{ service: { name: user } }");
        let new = resource("shop", "b", 2, "{ service: { name: user } }");
        let elsewhere = resource("other", "c", 0, "{ service: { name: user } }");
        let all = [&old, &new, &elsewhere];
        assert!(messages(&old, &all).is_empty());
        assert_eq!(
            messages(&new, &all),
            ["Service user belongs to ResilientService a, which is older: remove one of the two"]
        );
    }

    #[test]
    fn equal_age_is_decided_by_uid() {
        let a = resource("shop", "a", 1, "{ service: { name: user } }");
        let b = resource("shop", "b", 1, "{ service: { name: user } }");
        assert!(messages(&a, &[&a, &b]).is_empty());
        assert_eq!(messages(&b, &[&a, &b]).len(), 1);
    }

    #[test]
    fn a_consul_name_is_of_all_namespaces_and_the_holder_is_not_named() {
        let old =
            resource("secret", "a", 1, "{ service: { name: x }, consul: { serviceName: user.service } }");
        let new = resource("shop", "b", 2, "{ service: { name: user.service }, consul: {} }");
        let found = messages(&new, &[&old, &new]);
        assert!(found.len() == 1 && found[0].starts_with("the Consul name user.service"), "{found:?}");
        assert!(!found[0].contains("secret"));
    }

    #[test]
    fn a_consul_name_is_the_same_in_any_case() {
        let old = resource("a", "a", 1, "{ service: { name: x }, consul: { serviceName: User } }");
        let new = resource("b", "b", 2, "{ service: { name: user }, consul: {} }");
        assert_eq!(lost_to(&new, &[&old, &new])[0].claim, Claim::ConsulName("user".into()));
        let told = holding(resource("b", "c", 0, "{ service: { name: y } }"), &["consul/uSER"]);
        assert_eq!(
            lost_to(&old, &[&old, &told])[0].claim,
            Claim::ConsulName("user".into()),
            "an older status"
        );
    }

    #[test]
    fn a_host_belongs_to_a_namespace_and_a_path_to_a_resource() {
        let route = |path: &str| {
            format!(
                "{{ service: {{ name: s{path} }}, gateway: {{ routes: [{{ host: a.io, pathPrefix: /{path} }}] }} }}"
            )
        };
        let old = resource("shop", "a", 1, &route("users"));
        let beside = resource("shop", "b", 2, &route("orders"));
        let same = resource("shop", "c", 3, &route("users/"));
        let elsewhere = resource("other", "d", 4, &route("x"));
        let all = [&old, &beside, &same, &elsewhere];
        assert!(messages(&beside, &all).is_empty());
        assert_eq!(lost_to(&same, &all).len(), 1);
        assert_eq!(lost_to(&elsewhere, &all)[0].claim, Claim::Host("a.io".into()));
    }

    fn holding(mut resource: ResilientService, claims: &[&str]) -> ResilientService {
        let claims = claims.iter().map(|&claim| claim.to_owned()).collect();
        resource.status = Some(ResilientServiceStatus { claims, ..ResilientServiceStatus::default() });
        resource
    }

    #[test]
    fn who_holds_keeps_against_an_older_one() {
        let route = "{ service: { name: a }, consul: {}, gateway: { routes: [{ host: a.io }] } }";
        let young = holding(resource("shop", "young", 9, route), &["consul/a", "host/a.io", "route/a.io"]);
        let beside = resource("shop", "beside", 5, &route.replace("a.io", "a.io, pathPrefix: /x"));
        let old = resource("other", "old", 1, route);
        let all = [&young, &beside, &old];
        assert_eq!(lost_to(&old, &all).len(), 3);
        assert!(lost_to(&old, &all).iter().all(|lost| lost.held && lost.holder.is_none()));
        let beside = lost_to(&beside, &all);
        let hosts = beside.iter().filter(|lost| matches!(lost.claim, Claim::Host(_)));
        assert_eq!(hosts.count(), 0, "the host is the namespace's, though an older one asks for it");
        let young = lost_to(&young, &all);
        assert_eq!(young.iter().map(|lost| &lost.claim).collect::<Vec<_>>(), [&Claim::Service("a".into())]);
    }

    #[test]
    fn what_is_held_is_claimed_though_the_spec_does_not_ask_for_it_any_more() {
        let moved = holding(resource("shop", "a", 1, "{ service: { name: new } }"), &["service/old", "?"]);
        let next = resource("shop", "b", 2, "{ service: { name: old } }");
        assert_eq!(
            messages(&next, &[&moved, &next]),
            ["Service old belongs to ResilientService a, which holds it: remove one of the two"]
        );
        assert!(share(&moved, &next) && share(&next, &moved) && !share(&next, &next));
        let elsewhere = resource("other", "b", 2, "{ service: { name: old } }");
        assert!(!share(&moved, &elsewhere));
    }

    #[test]
    fn of_two_that_hold_the_older_has_it() {
        let old = holding(resource("shop", "a", 1, "{ service: { name: x } }"), &["consul/x"]);
        let new = holding(resource("other", "b", 2, "{ service: { name: y } }"), &["consul/x"]);
        assert!(lost_to(&old, &[&old, &new]).is_empty());
        assert_eq!(lost_to(&new, &[&old, &new])[0].claim, Claim::ConsulName("x".into()));
    }

    /// As refused for this reason at this generation; it is of generation 2.
    fn refused(mut resource: ResilientService, reason: &str, generation: i64) -> ResilientService {
        resource.metadata.generation = Some(2);
        let condition = serde_json::json!({
            "type": "Accepted", "status": "False", "reason": reason, "message": "", "observedGeneration": generation,
            "lastTransitionTime": "2026-11-24T21:00:00Z",
        });
        let status = resource.status.get_or_insert_default();
        status.conditions = vec![serde_json::from_value(condition).unwrap()];
        resource
    }

    #[test]
    fn who_was_refused_for_its_own_content_stands_back_until_it_is_edited() {
        let refused = |reason, generation| {
            refused(resource("a", "old", 1, "{ service: { name: x } }"), reason, generation)
        };
        assert!(stands_back(&refused("Invalid", 2)) && stands_back(&refused("KeyNotAllowed", 2)));
        assert!(!stands_back(&refused("Invalid", 1)), "it was edited since");
        assert!(!stands_back(&refused("Conflict", 2)), "it takes over as soon as it can");
        assert!(!stands_back(&resource("a", "old", 1, "{ service: { name: x } }")));
    }

    #[test]
    fn who_waits_keeps_nobody_from_what_it_only_asks_for() {
        let old = holding(resource("a", "old", 1, "{ service: { name: x }, consul: {} }"), &["service/x"]);
        let young = resource("b", "young", 2, "{ service: { name: x }, consul: {} }");
        let waiting = BTreeSet::from(["uid-a-old".to_owned()]);
        assert_eq!(lost(&young, [&old], &BTreeSet::new())[0].by, "uid-a-old");
        assert!(lost(&young, [&old], &waiting).is_empty());
        let holder = holding(old, &["consul/x"]);
        assert_eq!(lost(&young, [&holder], &waiting).len(), 1, "what it holds it keeps");
    }

    #[test]
    fn only_what_another_holds_holds_off() {
        let one = resource("shop", "one", 5, "{ service: { name: a }, consul: {} }");
        let older = resource("shop", "older", 1, "{ service: { name: a } }");
        assert!(!is_held_off(&one, [&one, &older]), "an older one only asks");
        let older = holding(older, &["service/a"]);
        assert!(is_held_off(&one, [&one, &older]));
        let elsewhere = holding(resource("x", "y", 1, "{ service: { name: b } }"), &["service/a"]);
        assert!(!is_held_off(&one, [&one, &elsewhere]), "another Service");
        let let_go = holding(one, &["host/a.io"]);
        let rival = holding(resource("x", "z", 1, "{ service: { name: c } }"), &["host/a.io"]);
        assert!(!is_held_off(&let_go, [&rival]), "it does not ask for that any more");
    }

    #[test]
    fn a_claim_is_read_as_it_is_written() {
        let spec = "{ service: { name: s }, consul: {}, config: { etcdKeys: { a/b: '1' } }, gateway: { routes: \
                    [{ host: a.io }, { host: a.io, pathPrefix: /x/y }] } }";
        let resource = resource("shop", "a", 1, spec);
        let listed = listed(asked(&resource).into_iter().chain(asked(&resource)));
        assert_eq!(listed, ["service/s", "consul/s", "host/a.io", "route/a.io", "route/a.io/x/y", "raw/a/b"]);
        assert_eq!(listed.iter().map(|c| c.parse()).collect::<Result<Vec<_>, _>>(), Ok(asked(&resource)));
    }

    #[test]
    fn a_raw_key_is_of_all_namespaces() {
        let spec = |n: u8| format!("{{ service: {{ name: s{n} }}, config: {{ etcdKeys: {{ k: '1' }} }} }}");
        let (old, new) = (resource("a", "a", 1, &spec(1)), resource("b", "b", 2, &spec(2)));
        assert_eq!(lost_to(&new, &[&old, &new])[0].claim, Claim::RawKey("k".into()));
    }
}

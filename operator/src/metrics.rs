//! What Prometheus reads.

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientServiceStatus;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

use crate::reconcile::conditions::types;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are label values")]
pub enum Outcome {
    /// Everything is as declared.
    converged,
    /// Something is in the way that a person must change.
    blocked,
    /// A backend is in trouble; tried again soon.
    retry,
    /// The resource and all it applied is gone.
    cleaned,
    /// The object cannot be decoded.
    unreadable,
}

/// Which part of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "names say it")]
pub enum Backend {
    Consul,
    Etcd,
    Kubernetes,
}

/// What kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "names say it")]
pub enum EffectKind {
    Catalog,
    Route,
    Store,
}

/// Did it take place?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "names say it")]
pub enum EffectResult {
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEffect {
    kind: EffectKind,
    result: EffectResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByBackend {
    backend: Backend,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    namespace: String,
    name: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    namespace: String,
    name: String,
    status: &'static str,
}

/// What [`ByState`] tells apart.
const STATES: [&str; 3] = ["ready", "enforcing", "rejecting"];
/// What [`ByStatus`] tells apart.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ByOutcome, Counter>,
    duration: Histogram,
    effects: Family<ByEffect, Counter>,
    errors: Family<ByBackend, Counter>,
    instances: Family<ByState, Gauge>,
    enforced: Family<ByStatus, Gauge>,
    propagation: Histogram,
    held: Family<ByBackend, Gauge>,
    orphans: Family<ByBackend, Counter>,
    leader: Gauge,
    /// Those of the dead man.
    pub dead_man: DeadManMetrics,
}

/// What the dead man tells.
#[derive(Clone, Debug, Default)]
pub struct DeadManMetrics {
    /// Catalog nodes of this cluster.
    pub nodes: Gauge,
    /// Those with a check that is passing and depends on a session.
    pub armed: Gauge,
    /// How long the session that waits the longest was not renewed by this process, in seconds.
    pub unrenewed: Gauge,
    /// 1: that is a quarter of the TTL or more.
    pub late: Gauge,
    /// How often a check was put under a new session.
    pub rotations: Counter,
}

impl DeadManMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("fusebox_dead_man_nodes", "Consul nodes of this cluster", self.nodes.clone());
        registry.register(
            "fusebox_dead_man_armed",
            "Consul nodes of this cluster whose dead man is passing and waits for a session",
            self.armed.clone(),
        );
        registry.register_with_unit(
            "fusebox_dead_man_unrenewed",
            "Since the oldest of the last renewals of the dead men's sessions",
            Unit::Seconds,
            self.unrenewed.clone(),
        );
        registry.register(
            "fusebox_dead_man_late",
            "1 while a dead man's session was not renewed for a quarter of its TTL",
            self.late.clone(),
        );
        registry.register(
            "fusebox_dead_man_rotations",
            "Sessions that dead men were put under",
            self.rotations.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            reconciles: Family::default(),
            duration: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            effects: Family::default(),
            errors: Family::default(),
            instances: Family::default(),
            enforced: Family::default(),
            propagation: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0,
            ]),
            leader: Gauge::default(),
            dead_man: DeadManMetrics::default(),
            held: Family::default(),
            orphans: Family::default(),
            registry: Registry::default(),
        };
        metrics.dead_man.register(&mut registry);
        registry.register(
            "fusebox_reconciles",
            "Reconciliations by how they ended",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "fusebox_reconcile_duration",
            "How long a reconciliation takes",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("fusebox_effects", "Writes to Consul, Traefik and etcd", metrics.effects.clone());
        registry.register(
            "fusebox_backend_errors",
            "Calls to a backend that failed or were refused",
            metrics.errors.clone(),
        );
        registry.register(
            "fusebox_enforcement_instances",
            "Instances of a ResilientService: ready, enforcing the published policy, rejecting it",
            metrics.instances.clone(),
        );
        registry.register(
            "fusebox_enforcement_status",
            "The condition Enforced of a ResilientService: 1 for the status it has",
            metrics.enforced.clone(),
        );
        registry.register_with_unit(
            "fusebox_enforcement_propagation",
            "From the first sight of a changed policy to the last ready instance's report that it runs it",
            Unit::Seconds,
            metrics.propagation.clone(),
        );
        registry.register(
            "fusebox_leader",
            "1 in the replica that leads, 0 in a standby",
            metrics.leader.clone(),
        );
        registry.register(
            "fusebox_deletions_held",
            "Entries in Consul, or resources' keys in etcd, that seem to be gone and are more than may go at once",
            metrics.held.clone(),
        );
        registry.register(
            "fusebox_orphans_removed",
            "Entries in Consul and keys in etcd that were removed since their resource is gone",
            metrics.orphans.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("fusebox_build", "The version of this program", build);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A reconciliation ended.
    pub fn reconciled(&self, result: Outcome, took: Duration) {
        self.reconciles.get_or_create(&ByOutcome { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A write ended.
    pub fn effect(&self, kind: EffectKind, result: EffectResult) {
        self.effects.get_or_create(&ByEffect { kind, result }).inc();
    }

    /// A call failed.
    pub fn backend_error(&self, backend: Backend) {
        self.errors.get_or_create(&ByBackend { backend }).inc();
    }

    /// What the instances of a resource do, as its status says.
    pub fn enforcement(&self, of: &Ident, status: &ResilientServiceStatus) {
        let counts = status.instances.clone().unwrap_or_default();
        for (state, value) in STATES.into_iter().zip([counts.ready, counts.enforcing, counts.rejecting]) {
            self.instances.get_or_create(&by_state(of, state)).set(value.into());
        }
        let enforced = status.conditions.iter().find(|condition| condition.type_ == types::ENFORCED);
        for status in STATUSES {
            let is_so = enforced.is_some_and(|condition| condition.status == status);
            self.enforced.get_or_create(&by_status(of, status)).set(is_so.into());
        }
    }

    /// A changed policy came into force in every ready instance.
    pub fn propagated(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }

    /// Does this replica lead?
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// So much may not be deleted yet.
    pub fn held(&self, backend: Backend, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.held.get_or_create(&ByBackend { backend }).set(count);
    }

    /// What a resource that is gone had left was removed.
    pub fn orphans_removed(&self, backend: Backend, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.orphans.get_or_create(&ByBackend { backend }).inc_by(count);
    }

    /// A resource is gone.
    pub fn forget(&self, of: &Ident) {
        for state in STATES {
            self.instances.remove(&by_state(of, state));
        }
        for status in STATUSES {
            self.enforced.remove(&by_status(of, status));
        }
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn by_state(of: &Ident, state: &'static str) -> ByState {
    ByState { namespace: of.namespace.clone(), name: of.name.clone(), state }
}

fn by_status(of: &Ident, status: &'static str) -> ByStatus {
    ByStatus { namespace: of.namespace.clone(), name: of.name.clone(), status }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::v1alpha1::Instances;

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    #[test]
    fn what_prometheus_reads() {
        let metrics = Metrics::default();
        let of = Ident::new("shop", "user");
        metrics.reconciled(Outcome::converged, Duration::from_millis(3));
        metrics.effect(EffectKind::Catalog, EffectResult::Done);
        metrics.backend_error(Backend::Etcd);
        let status = ResilientServiceStatus {
            conditions: vec![Condition {
                type_: types::ENFORCED.into(),
                status: "False".into(),
                reason: "Rejected".into(),
                message: String::new(),
                observed_generation: Some(1),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            }],
            instances: Some(Instances { ready: 8, enforcing: 7, rejecting: 1 }),
            ..ResilientServiceStatus::default()
        };
        metrics.enforcement(&of, &status);
        metrics.propagated(Duration::from_millis(40));
        metrics.leads(true);
        metrics.dead_man.unrenewed.set(900);
        metrics.dead_man.rotations.inc();
        metrics.held(Backend::Consul, 90);
        metrics.orphans_removed(Backend::Etcd, 3);
        let text = metrics.encode();
        for line in [
            r#"fusebox_reconciles_total{result="converged"} 1"#,
            "fusebox_reconcile_duration_seconds_count 1",
            r#"fusebox_effects_total{kind="Catalog",result="Done"} 1"#,
            r#"fusebox_backend_errors_total{backend="Etcd"} 1"#,
            r#"fusebox_enforcement_instances{namespace="shop",name="user",state="enforcing"} 7"#,
            r#"fusebox_enforcement_status{namespace="shop",name="user",status="False"} 1"#,
            r#"fusebox_enforcement_status{namespace="shop",name="user",status="True"} 0"#,
            r#"fusebox_enforcement_propagation_seconds_bucket{le="0.05"} 1"#,
            "fusebox_leader 1",
            "fusebox_dead_man_unrenewed_seconds 900",
            "fusebox_dead_man_rotations_total 1",
            r#"fusebox_deletions_held{backend="Consul"} 90"#,
            r#"fusebox_orphans_removed_total{backend="Etcd"} 3"#,
            "fusebox_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        metrics.forget(&of);
        assert!(!metrics.encode().contains(r#"name="user""#));
    }
}

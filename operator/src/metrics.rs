//! What Prometheus reads.

use fusebox_policy::keys::Ident;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

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
struct ByResource {
    namespace: String,
    name: String,
    state: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ByOutcome, Counter>,
    duration: Histogram,
    effects: Family<ByEffect, Counter>,
    errors: Family<ByBackend, Counter>,
    enforcement: Family<ByResource, Gauge>,
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
            enforcement: Family::default(),
            registry: Registry::default(),
        };
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
            "fusebox_enforcement",
            "Instances of a ResilientService: ready, enforcing the published policy, rejecting it",
            metrics.enforcement.clone(),
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

    /// What the instances of a resource do.
    pub fn enforcement(&self, of: &Ident, ready: u32, enforcing: u32, rejecting: u32) {
        for (state, value) in [("ready", ready), ("enforcing", enforcing), ("rejecting", rejecting)] {
            self.enforcement.get_or_create(&Self::label(of, state)).set(value.into());
        }
    }

    /// A resource is gone.
    pub fn forget(&self, of: &Ident) {
        for state in ["ready", "enforcing", "rejecting"] {
            self.enforcement.remove(&Self::label(of, state));
        }
    }

    fn label(of: &Ident, state: &'static str) -> ByResource {
        ByResource { namespace: of.namespace.clone(), name: of.name.clone(), state }
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_reads() {
        let metrics = Metrics::default();
        let of = Ident::new("shop", "user");
        metrics.reconciled(Outcome::converged, Duration::from_millis(3));
        metrics.effect(EffectKind::Catalog, EffectResult::Done);
        metrics.backend_error(Backend::Etcd);
        metrics.enforcement(&of, 8, 7, 1);
        let text = metrics.encode();
        for line in [
            r#"fusebox_reconciles_total{result="converged"} 1"#,
            "fusebox_reconcile_duration_seconds_count 1",
            r#"fusebox_effects_total{kind="Catalog",result="Done"} 1"#,
            r#"fusebox_backend_errors_total{backend="Etcd"} 1"#,
            r#"fusebox_enforcement{namespace="shop",name="user",state="enforcing"} 7"#,
            "fusebox_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        metrics.forget(&of);
        assert!(!metrics.encode().contains("fusebox_enforcement{"));
    }
}

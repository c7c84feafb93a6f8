//! The custom resource `ResilientService`, version v1alpha1.
//!
//! A field is here only once it acts. What one value decides is checked by the API server (patterns,
//! bounds, CEL); what needs inheritance or other objects is checked by the operator and told as a condition.

// The doc comments are what `kubectl explain` prints; printcolumn attributes repeat by nature.
#![allow(clippy::doc_markdown, clippy::duplicated_attributes)]

mod config;
mod consul;
mod gateway;
mod inbound;
mod outbound;
mod rate;
mod status;
#[cfg(test)]
mod tests;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use config::{ConfigSpec, RawValue};
pub use consul::{ConsulSpec, MetaValue};
pub use gateway::{EntryPoints, GatewaySpec, RouteSpec, TlsSpec};
pub use inbound::{AnswerSpec, GrpcMatch, HttpMatch, InboundSpec, MatchSpec, MethodSpec};
pub use outbound::{
    BreakerMode, CircuitBreakerSpec, CodeSpec, CommandSpec, ErrorsSpec, FallbackSpec, OutboundSpec,
    RetrySpec, SlowCallSpec,
};
pub use rate::{RateLimitSpec, RateScope};
pub use status::{EjectedEndpoint, Failure, Instances, OpenBreaker, ResilientServiceStatus, Summary};

/// The API group.
pub const GROUP: &str = "fusebox.dev";
/// The finalizer that lets the operator clear Consul, etcd and Traefik before a resource goes.
pub const FINALIZER: &str = "resilientservices.fusebox.dev/cleanup";
/// Set it to `true` to give up a clean-up that cannot end; what stays is listed in an Event.
pub const ABANDON_ANNOTATION: &str = "fusebox.dev/abandon-cleanup";
/// Set it to `true` to let instances that vanished be deregistered, however many they are. It holds until it is taken
/// off again.
pub const PROCEED_ANNOTATION: &str = "fusebox.dev/proceed-with-deletions";

/// How one Service fails, and where it is known.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "fusebox.dev",
    version = "v1alpha1",
    kind = "ResilientService",
    plural = "resilientservices",
    shortname = "rsvc",
    category = "fusebox",
    namespaced,
    status = "ResilientServiceStatus",
    derive = "PartialEq",
    doc = "How one Service fails, and where it is known: its policy in every instance, its instances in Consul, its routes in Traefik.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Enforced", type_ = "string", json_path = ".status.summary.enforced"),
    printcolumn(name = "Breaker", type_ = "string", json_path = ".status.summary.breaker"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service.name", priority = 1),
    printcolumn(
        name = "Gateway",
        type_ = "string",
        json_path = ".spec.gateway.routes[0].host",
        priority = 1
    ),
    printcolumn(name = "Outliers", type_ = "integer", json_path = ".status.outlierCount", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ResilientServiceSpec {
    /// The Service of this namespace whose instances are meant. One ResilientService per Service.
    pub service: ServiceRef,
    /// Calls to this service: attached by path, applied by the server layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<InboundSpec>,
    /// Calls this service makes: Hystrix commands, attached by name in code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<OutboundSpec>,
    /// A candidate for the policy: the instances decide by it on every call and count what it would have done,
    /// but act by the policy alone. It says only what it changes: the candidate is the policy as if these fields
    /// stood in spec.inbound and spec.outbound. A method is the one with the same match, a command the one with
    /// the same name; one that is not there is added. So
    /// `shadow: { outbound: { commands: [{ name: find_user, timeout: 150ms }] } }` tries find_user with 150ms
    /// and all else as it is. Retries and fallbacks only act: they are refused here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Boxed: as large as all else, and rarely there.
    pub shadow: Option<Box<ShadowSpec>>,
    /// Registration in Consul. Absent: not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulSpec>,
    /// Routes in Traefik. Absent: no routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// Configuration published to etcd beside the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigSpec>,
}

/// A Service and one of its ports.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The port by name or number. Optional when the Service has one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
}

/// What a candidate for the policy changes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.inbound) || !has(self.inbound.methods) || self.inbound.methods.all(m, !has(m.fallback))",
    "a candidate decides and does nothing: remove fallback from shadow.inbound.methods"
))]
#[x_kube(validation = (
    "!has(self.outbound) || !(has(self.outbound.retry) || has(self.outbound.fallback))",
    "a candidate decides and does nothing: remove retry and fallback from shadow.outbound"
))]
#[x_kube(validation = (
    "!has(self.outbound) || !has(self.outbound.commands) || self.outbound.commands.all(c, !has(c.retry) && !has(c.fallback))",
    "a candidate decides and does nothing: remove retry and fallback from shadow.outbound.commands"
))]
pub struct ShadowSpec {
    /// What the candidate changes in spec.inbound. Absent: no candidate for calls to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<InboundSpec>,
    /// What the candidate changes in spec.outbound. Absent: no candidate for calls the service makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<OutboundSpec>,
}

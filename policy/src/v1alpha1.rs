//! The custom resource `ResilientService`, version v1alpha1.
//!
//! A field is here only once it acts. What one value decides is checked by the API server (patterns,
//! bounds, CEL); what needs inheritance or other objects is checked by the operator and told as a condition.

// The doc comments are what `kubectl explain` prints; printcolumn attributes repeat by nature.
#![allow(clippy::doc_markdown, clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
pub use crate::policy::BreakerMode;

/// The API group.
pub const GROUP: &str = "fusebox.dev";
/// The finalizer that lets the operator clear Consul, etcd and Traefik before a resource goes.
pub const FINALIZER: &str = "resilientservices.fusebox.dev/cleanup";
/// Set it to `true` to give up a clean-up that cannot end; what stays is listed in an Event.
pub const ABANDON_ANNOTATION: &str = "fusebox.dev/abandon-cleanup";

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

/// Policies of the calls to the service.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundSpec {
    /// After it the work is cancelled and the caller gets DEADLINE_EXCEEDED or 504. It covers the time to the
    /// head of the response: a stream that has begun is not cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Requests in flight at once, for each method by itself; one more gets RESOURCE_EXHAUSTED or 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
    /// Policies of single methods, each starting from this section. The first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub methods: Vec<MethodSpec>,
}

/// The policy of one method.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodSpec {
    /// Which requests are meant.
    #[serde(rename = "match")]
    pub matches: MatchSpec,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
}

/// Which requests are meant: a gRPC method or an HTTP path.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = ("has(self.grpc) != has(self.http)", "set exactly one of grpc and http"))]
#[serde(rename_all = "camelCase")]
pub struct MatchSpec {
    /// A gRPC method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcMatch>,
    /// An HTTP path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMatch>,
}

/// A gRPC method, or all of a service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcMatch {
    /// The full name, like `user.v1.UserService`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z_][A-Za-z0-9_.]*$"))]
    pub service: String,
    /// The method, like `GetUser`. Absent: every method of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub method: Option<String>,
}

/// HTTP requests under a path.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// The HTTP method. Absent: every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^[A-Z]+$"))]
    pub method: Option<String>,
    /// Whole path elements: `/users` means `/users` and `/users/ada`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$"))]
    pub path_prefix: String,
}

/// Policies of the calls the service makes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboundSpec {
    /// After it a call is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Calls in flight at once, for each command by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
    /// When calls are refused because too many failed. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreakerSpec>,
    /// Whether fallbacks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
    /// Policies of single commands, each starting from this section; objects merge field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub commands: Vec<CommandSpec>,
}

/// The policy of one command.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// The name in code: `fusebox.command("find_user")`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_.-]+$"))]
    pub name: String,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreakerSpec>,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
}

/// When a breaker opens and how it closes. What is not set is Hystrix's default.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreakerSpec {
    /// Opens at this percentage of failures and timeouts, or above. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub error_percent_threshold: Option<u32>,
    /// Fewer calls than this in the window are not judged. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub request_volume_threshold: Option<u32>,
    /// How long it stays open before it lets probes through. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_window: Option<GoDuration>,
    /// The window that is judged, in ten buckets. Default 10s, at least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_window: Option<GoDuration>,
    /// How many probes half-open admits, and how many must succeed to close. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub half_open_probes: Option<u32>,
    /// What the breaker does with its verdict. Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BreakerMode>,
}

/// Whether the fallback that the code offers is used.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackSpec {
    /// False: the error reaches the caller.
    pub enabled: bool,
}

/// Registration in Consul's catalog.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsulSpec {
    /// The name to be found by. Default: the Service's name. A name with dots, like `user.service`, cannot be
    /// looked up through Consul's DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = (
        "self.lowerAscii() != 'consul'",
        "consul is the name of Consul's own servers: choose another"
    ))]
    pub service_name: Option<String>,
    /// Tags of every instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255)))]
    pub tags: Vec<String>,
    /// Metadata of every instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = (
        "self.all(k, k.matches('^[A-Za-z0-9_-]{1,128}$') && !k.startsWith('fusebox-') && !k.startsWith('consul-'))",
        "a key has letters, digits, - and _ only, at most 128, and does not begin with fusebox- or consul-"
    ))]
    pub meta: BTreeMap<String, MetaValue>,
}

/// A value in Consul's metadata; Consul allows 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxLength" = 512))]
#[serde(transparent)]
pub struct MetaValue(pub String);

/// Routes in Traefik.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!has(self.tls) || (has(self.entryPoints) && has(self.entryPoints.tls))",
    "tls needs entryPoints.tls, the name of the entry point that serves HTTPS"
))]
#[x_kube(validation = (
    "!has(self.entryPoints) || !has(self.entryPoints.tls) || has(self.tls)",
    "entryPoints.tls needs tls, so that no route is served without a certificate of its own choice"
))]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Traefik's entry points by use. Default: plain is `web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_points: Option<EntryPoints>,
    /// What is routed here. A host belongs to one namespace, a host and path to one resource.
    #[schemars(length(min = 1, max = 16))]
    pub routes: Vec<RouteSpec>,
    /// Where the certificate comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Traefik's entry points by use; each gets a route object of its own, so what is meant for TLS is never
/// served in plaintext.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = ("has(self.plain) || has(self.tls)", "name at least one of plain and tls"))]
#[x_kube(validation = (
    "!has(self.plain) || !has(self.tls) || self.plain != self.tls",
    "plain and tls must be two different entry points"
))]
#[serde(rename_all = "camelCase")]
pub struct EntryPoints {
    /// The entry point for plaintext HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub plain: Option<String>,
    /// The entry point for HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub tls: Option<String>,
}

/// Requests for a host, and a path under it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// The host name, in full.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// Whole path elements. Absent: every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$"))]
    pub path_prefix: Option<String>,
    /// Another port of the Service than spec.service.port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
}

/// Where the certificate of the TLS entry point comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = ("has(self.secretName) != has(self.certResolver)", "set exactly one of secretName and certResolver"))]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// A Secret of type kubernetes.io/tls in this namespace. Traefik reads it; the operator never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,
    /// A certificate resolver of Traefik's static configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub cert_resolver: Option<String>,
}

/// Configuration published to etcd.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSpec {
    /// One JSON document, at most 64 KiB: what Viper's remote provider reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = "object", "x-kubernetes-preserve-unknown-fields" = true))]
    pub document: Option<serde_json::Value>,
    /// Raw etcd keys, exact, under prefixes that the platform allows this namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = (
        "self.all(k, size(k) <= 253 && !k.startsWith('/fusebox/'))",
        "a key has at most 253 characters and does not begin with /fusebox/"
    ))]
    pub etcd_keys: BTreeMap<String, RawValue>,
}

/// The value of a raw etcd key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxLength" = 4096))]
#[serde(transparent)]
pub struct RawValue(pub String);

/// What was applied and what the instances report.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResilientServiceStatus {
    /// The generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Registered, Routed, Published, Enforced and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// For the columns of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The hash of the published policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_hash: Option<String>,
    /// How many instances there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,
    /// Breakers that are not closed, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub open_breakers: Vec<OpenBreaker>,
    /// Instances that do not enforce the policy and why, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failures: Vec<Failure>,
    /// What it holds and no other resource may take, as `consul/user.service`: what the accepted spec
    /// claims, and what of an earlier one is still applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub claims: Vec<String>,
}

/// For the columns of `kubectl get`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Ready instances that run the published policy, of all ready ones: `7/8`.
    pub enforced: String,
    /// `closed`, or which breaker is open on how many instances: `find_user open on 1`.
    pub breaker: String,
}

/// How many instances there are.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instances {
    /// Ready by their endpoint.
    pub ready: u32,
    /// Ready, and reported that they run the published policy.
    pub enforcing: u32,
    /// Reported that they refuse it.
    pub rejecting: u32,
}

/// A breaker that is not closed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenBreaker {
    /// The command it guards.
    pub command: String,
    /// The instance it is open on.
    pub instance: String,
    /// Open or HalfOpen.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why it opened.
    pub reason: String,
}

/// An instance that does not enforce the published policy.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The instance: its pod's name, or its address.
    pub instance: String,
    /// NoReport, Applying, Rejected, NotAttached or UnknownCommand.
    pub reason: String,
    /// For a person.
    pub message: String,
}

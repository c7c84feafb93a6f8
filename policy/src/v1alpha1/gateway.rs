//! Where the service is routed.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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

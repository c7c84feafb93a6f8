//! How calls to the service fail.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rate::RateLimitSpec;
use crate::duration::GoDuration;

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
    /// Requests a second, for each method by itself; one more gets RESOURCE_EXHAUSTED or 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// Policies of single methods, each starting from this section. The first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub methods: Vec<MethodSpec>,
}

/// The policy of one method.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!has(self.fallback) || !has(self.fallback.message) || (has(self.match.grpc) && has(self.match.grpc.method))",
    "fallback.message needs match.grpc.method; for HTTP give contentType and body"
))]
#[x_kube(validation = (
    "!has(self.fallback) || !has(self.fallback.body) || has(self.match.http)",
    "fallback.body needs match.http; for a gRPC method give message"
))]
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
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// A static answer in place of a refusal or a timeout. Absent: the caller gets the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<AnswerSpec>,
}

/// A static answer: message for a gRPC method, contentType and body for HTTP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = (
    "has(self.message) ? !has(self.contentType) && !has(self.body) : has(self.contentType) && has(self.body)",
    "set either message, or contentType and body"
))]
#[serde(rename_all = "camelCase")]
pub struct AnswerSpec {
    /// The response message of a gRPC method as protobuf writes it in JSON, at most 4096 bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = "object", "maxProperties" = 64, "x-kubernetes-preserve-unknown-fields" = true))]
    pub message: Option<serde_json::Value>,
    /// The content type of body, like `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[ -~]+$"))]
    pub content_type: Option<String>,
    /// Sent as it stands with status 200, at most 4096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
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

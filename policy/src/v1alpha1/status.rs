//! What is told of a resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
    /// Endpoints of this service that callers have ejected: they do not call them for now, whatever their readiness. The
    /// first 16; what callers say changes nothing but this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub outliers: Vec<EjectedEndpoint>,
    /// How many endpoints callers have ejected. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_count: Option<u32>,
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
    /// What the shadow policy would have done, as the instances count it:
    /// `find_user would have opened 3x, refused 12 of 4000 calls`. Absent: no shadow would have acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
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

/// An endpoint that callers have ejected.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EjectedEndpoint {
    /// Its address and port.
    pub endpoint: String,
    /// The instance: its pod's name, or its address.
    pub instance: String,
    /// Since when the operator knows of it, RFC 3339.
    pub since: String,
    /// Why the first of them ejected it: `5 failures in a row`.
    pub reason: String,
    /// ResilientServices whose instances have ejected it, as namespace/name: the first 4.
    #[schemars(length(max = 4))]
    pub callers: Vec<String>,
    /// How many ResilientServices these are in all.
    pub caller_count: u32,
    /// How many instances of theirs have ejected it.
    pub calling_instances: u32,
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

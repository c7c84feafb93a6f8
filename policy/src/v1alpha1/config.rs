//! What is published beside the policy.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

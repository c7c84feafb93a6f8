//! Where the service is registered.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Registration in Consul's catalog.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!has(self.goMicro) || !self.goMicro || !has(self.tags) || !self.tags.exists(tag, tag == 't' || tag == 'e')",
    "with goMicro no tag may be exactly t or e: go-micro's clients end on it; choose a longer one"
))]
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
    /// Register every instance so that clients of go-micro v1 find what a go-micro server would tell them, in tags
    /// that come before `tags`: the version (`meta.version`, else `latest`), all of `meta` as the node's metadata
    /// beside `server`, `transport` and `registry`, and as endpoints the gRPC methods that `inbound.methods` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_micro: Option<bool>,
}

/// A value in Consul's metadata; Consul allows 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxLength" = 512))]
#[serde(transparent)]
pub struct MetaValue(pub String);

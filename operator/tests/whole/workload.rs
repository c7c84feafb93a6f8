//! A life of one resource in four steps, and what is not ours beside it.

use fusebox_processes::{Site, objects};
use serde_json::{Value, json};

/// The cluster's name.
pub const CLUSTER: &str = "demo";
/// Where the workload is.
pub const NAMESPACE: &str = "shop";
/// Its raw key.
pub const RAW_KEY: &str = "service.user.timeout";
const SERVICE: &str = "user-service";
const NAME: &str = "user";

/// The chart's values. The dead man's shortest time: it is looked after every second, so that what it writes comes soon.
pub fn values() -> Value {
    json!({
        "cluster": CLUSTER,
        "consul": { "deadManTTL": "10s" },
        "etcd": { "allowedKeyPrefixes": { NAMESPACE: ["service.user."] } },
    })
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A resource with everything, for a service with two endpoints.
    Create,
    /// Another policy, another raw key, one entry point less.
    Edit,
    /// One endpoint goes, two come.
    Scale,
    /// The resource goes.
    Delete,
}

/// In order.
pub const STEPS: [Step; 4] = [Step::Create, Step::Edit, Step::Scale, Step::Delete];

/// Does what a person or Kubernetes would do in this step.
pub async fn take(site: &Site, step: Step) {
    let kubernetes = &site.kubernetes;
    match step {
        Step::Create => {
            let endpoints = [("10.0.0.1", true), ("10.0.0.2", true)];
            kubernetes.apply(&objects::slice(NAMESPACE, SERVICE, &endpoints)).await;
            kubernetes.apply(&objects::resource(NAMESPACE, NAME, &spec("1s", "1000", true))).await;
        }
        Step::Edit => {
            kubernetes.apply(&objects::resource(NAMESPACE, NAME, &spec("2s", "2000", false))).await;
        }
        Step::Scale => {
            let endpoints = [("10.0.0.2", true), ("10.0.0.3", true), ("10.0.0.4", false)];
            kubernetes.apply(&objects::slice(NAMESPACE, SERVICE, &endpoints)).await;
        }
        Step::Delete => kubernetes.delete(&objects::resource(NAMESPACE, NAME, &Value::Null)).await,
    }
}

fn spec(timeout: &str, raw: &str, tls: bool) -> Value {
    let mut spec = json!({
        "service": { "name": SERVICE, "port": "grpc" },
        "inbound": {
            "timeout": timeout,
            "rateLimit": { "requestsPerSecond": 500, "burst": 50, "scope": "Service" },
        },
        "outbound": { "commands": [{ "name": "find_user", "timeout": "250ms" }] },
        "consul": { "serviceName": "user.service", "tags": ["v1"], "meta": { "team": "shop" } },
        "gateway": {
            "entryPoints": { "plain": "web" },
            "routes": [{ "host": "api.example.com", "pathPrefix": "/users" }],
        },
        "config": { "document": { "service": { "user": { "timeout": 1000 } } }, "etcdKeys": { RAW_KEY: raw } },
    });
    if tls {
        spec["gateway"]["entryPoints"]["tls"] = json!("websecure");
        spec["gateway"]["tls"] = json!({ "secretName": "api-cert" });
    }
    spec
}

/// The namespace and its Service; and what is somebody else's on every plane, beside what the workload writes.
pub async fn prepare(site: &Site) {
    site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;
    site.kubernetes.apply(&objects::service(NAMESPACE, SERVICE)).await;
    let theirs = json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": { "name": "theirs", "namespace": NAMESPACE },
        "spec": { "routes": [{ "match": "Host(`api.example.com`)", "kind": "Rule" }] },
    });
    site.kubernetes.apply(&theirs).await;
    foreign(site).await;
}

/// What is somebody else's in the stores.
pub async fn foreign(site: &Site) {
    let entry = json!({
        "Node": "their-node",
        "Address": "10.9.9.9",
        "Service": { "ID": "theirs", "Service": "user.service", "Address": "10.9.9.9", "Port": 1 },
        "Check": { "CheckID": "service:theirs", "ServiceID": "theirs", "Name": "theirs", "Status": "passing" },
    });
    site.servers.consul.ask("PUT", "/v1/catalog/register", &entry).await;
    site.servers.consul.ask("PUT", "/v1/kv/fusebox/other/epoch", &json!("theirs")).await;
    let mut etcd = site.servers.etcd.client().await;
    for key in ["service.user.theirs", "service.other", "/fusebox/v1/other/policy/shop/user"] {
        etcd.put(key, "theirs", None).await.unwrap();
    }
}

/// Another sample every day; that of an earlier day again with `FUSEBOX_SEED`.
pub fn seed() -> usize {
    std::env::var("FUSEBOX_SEED").map_or_else(
        |_| usize::try_from(jiff::Timestamp::now().as_second() / 86_400).unwrap(),
        |seed| seed.parse().unwrap(),
    )
}

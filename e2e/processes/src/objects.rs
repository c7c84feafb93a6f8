//! Kubernetes objects as tests write them.

use serde_json::{Value, json};

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Service with one port `grpc`, 50051.
pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "grpc", "port": 50051 }] },
    })
}

/// The slice of that Service: these addresses, each ready or not, as pods `<service>-<address>`.
pub fn slice(namespace: &str, service: &str, endpoints: &[(&str, bool)]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready)| {
            let pod = format!("{service}-{}", address.replace('.', "-"));
            json!({
                "addresses": [address],
                "conditions": { "ready": ready },
                "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod, "uid": format!("uid-{pod}") },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"),
            "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "grpc", "port": 50051, "protocol": "TCP" }],
    })
}

/// A `ResilientService` with this spec.
pub fn resource(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "fusebox.dev/v1alpha1",
        "kind": "ResilientService",
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    })
}

//! Which Kubernetes cluster this is: the UID of its namespace `kube-system`, which lives as long as the cluster.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use tokio::time::{sleep, timeout};

/// How long one question may take, and how long until the next.
const ASK: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(2);

/// Asks until there is an answer; empty where the role does not let us know.
pub async fn home(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match timeout(ASK, namespaces.get_metadata("kube-system")).await {
            Ok(Ok(found)) => return found.uid().unwrap_or_default(),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403 | 404) => {
                tracing::warn!(
                    why = status.message,
                    "the namespace kube-system cannot be read, so another Kubernetes cluster with this cluster's \
                     name would not be noticed: let the operator's role get it"
                );
                return String::new();
            }
            Ok(Err(error)) => tracing::warn!(%error, "asking which cluster this is; trying again"),
            Err(_) => tracing::warn!("asking which cluster this is: no answer; trying again"),
        }
        sleep(AGAIN).await;
    }
}

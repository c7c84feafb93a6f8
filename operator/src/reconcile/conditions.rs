//! The names of conditions and reasons, and what an obstacle is. `docs/reference` and alerts rely on them.

/// Condition types.
pub mod types {
    /// The resource is valid and holds what it claims.
    pub const ACCEPTED: &str = "Accepted";
    /// Its instances are in Consul.
    pub const REGISTERED: &str = "Registered";
    /// Its routes are in Traefik.
    pub const ROUTED: &str = "Routed";
    /// Its policy and configuration are in etcd.
    pub const PUBLISHED: &str = "Published";
    /// Every ready instance runs the published policy.
    pub const ENFORCED: &str = "Enforced";
    /// Accepted, Registered, Routed and Published.
    pub const READY: &str = "Ready";
}

/// Reasons.
#[allow(missing_docs, reason = "each is explained by the message that goes with it")]
pub mod reasons {
    pub const ACCEPTED: &str = "Accepted";
    pub const INVALID: &str = "Invalid";
    pub const CONFLICT: &str = "Conflict";
    pub const KEY_NOT_ALLOWED: &str = "KeyNotAllowed";
    pub const NOT_ACCEPTED: &str = "NotAccepted";

    pub const NOT_REQUESTED: &str = "NotRequested";
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    pub const PORT_NOT_FOUND: &str = "PortNotFound";

    pub const REGISTERED: &str = "Registered";
    pub const CONSUL_UNAVAILABLE: &str = "ConsulUnavailable";
    pub const CONSUL_REFUSED: &str = "ConsulRefused";
    pub const NODE_TAKEN: &str = "NodeTaken";
    pub const DELETIONS_HELD: &str = "DeletionsHeld";

    pub const ROUTED: &str = "Routed";
    pub const TRAEFIK_CRDS_MISSING: &str = "TraefikCRDsMissing";
    pub const NAME_TAKEN: &str = "NameTaken";
    pub const ROUTE_REFUSED: &str = "RouteRefused";
    pub const KUBERNETES_UNAVAILABLE: &str = "KubernetesUnavailable";

    pub const PUBLISHED: &str = "Published";
    pub const ETCD_UNAVAILABLE: &str = "EtcdUnavailable";
    pub const ETCD_REFUSED: &str = "EtcdRefused";
    pub const KEY_TAKEN: &str = "KeyTaken";

    pub const ENFORCED: &str = "Enforced";
    pub const NO_READY_INSTANCES: &str = "NoReadyInstances";
    pub const NO_REPORTS: &str = "NoReports";
    pub const APPLYING: &str = "Applying";
    pub const REJECTED: &str = "Rejected";
    pub const STALE: &str = "Stale";
    pub const NOT_PUBLISHED: &str = "NotPublished";

    pub const READY: &str = "Ready";
    pub const CLEANUP_BLOCKED: &str = "CleanupBlocked";
    pub const CLEANUP_ABANDONED: &str = "CleanupAbandoned";
    pub const UNREADABLE: &str = "Unreadable";
}

/// What keeps a plane from being as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// For a person: what, and what to do.
    pub message: String,
    /// Does it go away by itself, so that trying again soon is of use?
    pub transient: bool,
}

impl Obstacle {
    /// One that stays until somebody changes something.
    pub fn lasting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), transient: false }
    }

    /// One that may be gone at the next try.
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), transient: true }
    }
}

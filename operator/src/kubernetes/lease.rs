//! The Lease in Kubernetes. The elector gives each request its deadline.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::{MANAGER, told};
use crate::leader::decide::Record;
use crate::leader::{LeaseStore, WriteError};
use crate::ports::{Answer, Unavailable};

/// One Lease of one namespace.
pub struct KubeLease {
    api: Api<Lease>,
    name: String,
}

impl KubeLease {
    /// It need not exist.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }
}

impl LeaseStore for KubeLease {
    /// With the resourceVersion; the rest of it, such as labels, stays as it is.
    type At = Lease;

    fn read(&self) -> Answer<'_, Result<Option<(Record, Lease)>, Unavailable>> {
        Box::pin(async {
            let found = self.api.get_opt(&self.name).await.map_err(|error| explained(&error))?;
            Ok(found.map(|lease| (of(&lease), lease)))
        })
    }

    fn write<'a>(&'a self, record: &'a Record, at: Option<&'a Lease>) -> Answer<'a, Result<(), WriteError>> {
        let mut lease = at.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        lease.metadata.managed_fields = None;
        into(record, lease.spec.get_or_insert_default());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        Box::pin(async move {
            let done = match at {
                // Its resourceVersion is in the metadata that was read.
                Some(_) => self.api.replace(&self.name, &params, &lease).await,
                None => self.api.create(&params, &lease).await,
            };
            match done {
                Ok(_) => Ok(()),
                // Another wrote it, created it, or deleted it.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    Err(WriteError::Conflict)
                }
                Err(error) => Err(explained(&error).into()),
            }
        })
    }
}

fn explained(error: &kube::Error) -> Unavailable {
    let mut why = told(error);
    if matches!(error, kube::Error::Api(status) if status.code == 403) {
        why.0.push_str(": the operator's Role for Leases is missing or incomplete");
    }
    why
}

fn of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        seconds: spec.lease_duration_seconds,
        transitions: spec.lease_transitions.unwrap_or_default(),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
    }
}

fn into(record: &Record, spec: &mut LeaseSpec) {
    spec.holder_identity = Some(record.holder.clone());
    spec.lease_duration_seconds = record.seconds;
    spec.lease_transitions = Some(record.transitions);
    spec.acquire_time = record.acquired.map(MicroTime);
    spec.renew_time = record.renewed.map(MicroTime);
}

#[cfg(test)]
mod tests;

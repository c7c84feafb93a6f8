//! The connection to etcd: one transaction at a time or several, each within its deadline.

use etcd_client::{Client, GetResponse, Txn, TxnOp, TxnOpResponse};
use fusebox::etcd::{EtcdConfig, connect};
use tokio::sync::{Mutex, watch};

use super::batch::Found;
use crate::gate::Gate;
use crate::ports::{Fence, Unavailable};

/// What etcd says to a user without a right, and what is to be done about it.
const DENIED: &str = "etcdserver: permission denied";
const REFUSED: &str = "etcd refuses a key to the operator's user: its role lacks a right of docs/etcd.md, or a \
                       prefix was taken out of allowedKeyPrefixes while a resource still holds keys under it";

/// What etcd says to every write since it was full, until somebody disarms its alarm, and what is to be done about it.
const FULL: &str = "etcdserver: mvcc: database space exceeded";
const MAKE_ROOM: &str = "etcd is out of space: it takes no writes, and what it holds stays in force. Make room by \
                         `etcdctl compact --physical <revision>` and `etcdctl defrag`, or start it with a larger \
                         --quota-backend-bytes; then `etcdctl alarm disarm`";

/// Why there is no result.
#[derive(Debug)]
pub struct Failure {
    /// For a person.
    pub told: Unavailable,
    /// Did etcd refuse what was asked for itself? Then it did not take place, and something else may.
    pub refused: bool,
    /// Would it have been so whatever was asked?
    silent: bool,
}

impl From<Unavailable> for Failure {
    fn from(told: Unavailable) -> Self {
        Self { told, refused: false, silent: true }
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Self {
        failure.told
    }
}

/// To one etcd.
pub struct Link {
    config: EtcdConfig,
    client: Mutex<Option<Client>>,
    gate: Gate,
}

impl Link {
    /// Nothing is sent yet.
    pub fn new(config: EtcdConfig) -> Self {
        Self { config, client: Mutex::default(), gate: Gate::new("etcd") }
    }

    /// How often etcd was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.gate.back()
    }

    /// Asks whether it is back, by a read of `key`, whenever callers are refused; for ever.
    pub async fn keep_asking(&self, key: &str) {
        let read = || Txn::new().and_then([TxnOp::get(key, None)]);
        self.gate.keep_asking(|| self.txn(read())).await;
    }

    /// One transaction. After a failure the next one connects anew: with a rotated password, to a moved
    /// address.
    pub async fn txn(&self, txn: Txn) -> Result<(bool, Vec<TxnOpResponse>), Failure> {
        // Boxed: the future of a connection is large.
        let silent = |failure: &Failure| failure.silent.then(|| failure.told.0.clone());
        let asked = Box::pin(async {
            let mut held = self.client.lock().await;
            let mut client = if let Some(client) = &*held {
                client.clone()
            } else {
                let client = connect(&self.config).await.map_err(|error| self.failed(&error))?;
                held.insert(client).clone()
            };
            drop(held);
            let done = client.txn(txn).await.map_err(|error| self.failure(&error))?;
            Ok((done.succeeded(), done.op_responses()))
        });
        let done = self.gate.ask(asked, silent).await;
        if done.is_err() {
            *self.client.lock().await = None;
        }
        done
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Unavailable {
        Unavailable(format!("etcd at {}: {error}", self.config.endpoints().join(", ")))
    }

    fn failure(&self, error: &etcd_client::Error) -> Failure {
        let etcd_client::Error::GRpcStatus(status) = error else { return self.failed(error).into() };
        let told = match status.message() {
            DENIED => self.failed(&REFUSED),
            FULL => self.failed(&MAKE_ROOM),
            // Its own text is for whoever debugs the client.
            message => self.failed(&format!("{}: {message}", status.code())),
        };
        // The numbers of gRPC: for an argument that is not taken, and for a right that is missing; for what nobody knows,
        // as a connection that broke, for a deadline, and for a server that cannot be reached or has no leader.
        let is = |codes: &[i32]| codes.contains(&i32::from(status.code()));
        Failure { told, refused: is(&[3, 7]), silent: is(&[2, 4, 14]) }
    }

    #[cfg(test)]
    pub fn config(&self) -> EtcdConfig {
        self.config.clone()
    }
}

/// The value a read found, and the revision it was written at.
pub fn value(answer: &TxnOpResponse) -> Found {
    let TxnOpResponse::Get(found) = answer else { return None };
    let kv = GetResponse::kvs(found).first()?;
    let at = Fence(u64::try_from(kv.mod_revision()).unwrap_or_default());
    Some((String::from_utf8_lossy(kv.value()).into_owned(), at))
}

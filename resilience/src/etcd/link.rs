//! What a watch and a report need of etcd, as traits: the real one beside it, one in memory in simulations.
//!
//! # Assumptions
//! - A future that is dropped may or may not have had its effect, as with any request on a wire.
//! - None has a time limit of its own: who waits sets it.

use std::time::Duration;

use super::connect::EtcdError;
use super::follow::{Change, Entry, Range};

/// A way to an etcd.
pub trait Link: Clone + Send + Sync + 'static {
    /// What [`open`](Self::open) gives.
    type Connection: Connection;

    /// Opens a connection of its own.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, EtcdError>> + Send;
}

/// A connection to an etcd.
pub trait Connection: Send + 'static {
    /// What [`watch`](Self::watch) gives.
    type Watch: Watch;
    /// What [`grant`](Self::grant) gives.
    type Lease: Lease;

    /// Some keys of a range, in order.
    fn page(&mut self, page: &PageRequest) -> impl Future<Output = Result<Page, EtcdError>> + Send;

    /// Watches a range from a revision on, which may be one of the past; ready once etcd has confirmed it.
    fn watch(
        &mut self,
        range: &Range,
        from: i64,
    ) -> impl Future<Output = Result<Self::Watch, EtcdError>> + Send;

    /// Grants a lease.
    fn grant(&mut self, ttl: Duration) -> impl Future<Output = Result<Self::Lease, EtcdError>> + Send;

    /// Writes a key under a lease.
    fn put(
        &mut self,
        key: &str,
        value: Vec<u8>,
        lease: i64,
    ) -> impl Future<Output = Result<(), EtcdError>> + Send;

    /// A key's value and lease (0: none), read consistently.
    fn get(&mut self, key: &str) -> impl Future<Output = Result<Option<(Vec<u8>, i64)>, EtcdError>> + Send;

    /// Ends a lease and every key under it.
    fn revoke(&mut self, lease: i64) -> impl Future<Output = Result<(), EtcdError>> + Send;
}

/// What to read of a range.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// The first key.
    pub from: Vec<u8>,
    /// The key after the last; None: the first alone.
    pub end: Option<Vec<u8>>,
    /// The most keys.
    pub limit: i64,
    /// At which revision; 0: the newest.
    pub revision: i64,
}

/// A part of a range.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// By key.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Of etcd, when it was read.
    pub revision: i64,
    /// Of its leader's election, when it was read.
    pub term: u64,
    /// Whether keys of the range follow.
    pub more: bool,
}

/// What a watch says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Each a [`Change::Put`] or [`Change::Delete`]; none where etcd only tells that it is there.
    pub changes: Vec<Change>,
    /// Of the election of etcd's leader, now.
    pub term: u64,
}

/// A running watch.
pub trait Watch: Send {
    /// Waits for the next message. The end of the watch is an error. Cancel-safe.
    fn message(&mut self) -> impl Future<Output = Result<Message, EtcdError>> + Send;

    /// Asks for a message.
    fn request_progress(&mut self) -> impl Future<Output = Result<(), EtcdError>> + Send;
}

/// A granted lease.
pub trait Lease: Send {
    /// Its number.
    fn id(&self) -> i64;

    /// Renews it; whether it still lives.
    fn renew(&mut self) -> impl Future<Output = Result<bool, EtcdError>> + Send;
}

//! The real etcd behind [`Link`].

use std::time::Duration;

use etcd_client::{
    Client, EventType, GetOptions, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions, ResponseHeader,
    SortOrder, SortTarget, WatchOptions, WatchStream,
};

use super::connect::{EtcdConfig, EtcdError, connect};
use super::follow::{Change, Entry, Range};
use super::link::{Connection, Lease, Link, Message, Page, PageRequest, Watch};

/// How much a page may weigh.
const PAGE_BYTES: usize = 256 << 20;

impl Link for EtcdConfig {
    type Connection = Client;

    async fn open(&self) -> Result<Client, EtcdError> {
        connect(self).await
    }
}

impl Connection for Client {
    type Watch = WatchStream;
    type Lease = Granted;

    async fn page(&mut self, page: &PageRequest) -> Result<Page, EtcdError> {
        let mut options = GetOptions::new()
            .with_limit(page.limit)
            .with_sort(SortTarget::Key, SortOrder::Ascend)
            .with_revision(page.revision);
        if let Some(end) = &page.end {
            options = options.with_range(end.clone());
        }
        let mut kv = self.kv_client().max_decoding_message_size(PAGE_BYTES);
        let mut answer = kv.get(page.from.clone(), Some(options)).await?;
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        let term = answer.header().map_or(0, ResponseHeader::raft_term);
        let more = answer.more();
        let entries = answer.take_kvs().into_iter().map(|kv| (kv.key().to_vec(), entry(&kv))).collect();
        Ok(Page { entries, revision, term, more })
    }

    async fn watch(&mut self, range: &Range, from: i64) -> Result<WatchStream, EtcdError> {
        let options = WatchOptions::new().with_start_revision(from).with_fragment();
        let (key, options) = match range {
            Range::Key(key) => (key, options),
            Range::Prefix(prefix) => (prefix, options.with_prefix()),
        };
        Ok(self.watch_client().watch(key.as_str(), Some(options)).await?)
    }

    async fn grant(&mut self, ttl: Duration) -> Result<Granted, EtcdError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let id = self.lease_grant(ttl, None).await?.id();
        let (keeper, renewals) = self.lease_keep_alive(id).await?;
        Ok(Granted { id, keeper, renewals })
    }

    async fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), EtcdError> {
        let options = PutOptions::new().with_lease(lease);
        self.kv_client().put(key, value, Some(options)).await?;
        Ok(())
    }

    async fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, i64)>, EtcdError> {
        let found = self.kv_client().get(key, None).await?;
        Ok(found.kvs().first().map(|kv| (kv.value().to_vec(), kv.lease())))
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), EtcdError> {
        self.lease_revoke(lease).await?;
        Ok(())
    }
}

/// A lease and what keeps it.
#[derive(Debug)]
pub struct Granted {
    id: i64,
    keeper: LeaseKeeper,
    renewals: LeaseKeepAliveStream,
}

impl Lease for Granted {
    fn id(&self) -> i64 {
        self.id
    }

    async fn renew(&mut self) -> Result<bool, EtcdError> {
        self.keeper.keep_alive().await?;
        Ok(self.renewals.message().await?.is_some_and(|renewed| renewed.ttl() > 0))
    }
}

impl Watch for WatchStream {
    async fn message(&mut self) -> Result<Message, EtcdError> {
        let message = WatchStream::message(self).await?;
        let Some(response) = message else { return Err(EtcdError::Ended("the watch ended".to_owned())) };
        if response.canceled() {
            return Err(EtcdError::Ended(match response.compact_revision() {
                0 => response.cancel_reason().to_owned(),
                revision => format!("compacted up to revision {revision}"),
            }));
        }
        let changes = response.events().iter().filter_map(|event| {
            let kv = event.kv()?;
            let key = key(kv.key());
            Some(match event.event_type() {
                EventType::Put => Change::Put { key, entry: entry(kv) },
                EventType::Delete => Change::Delete { key, mod_revision: kv.mod_revision() },
            })
        });
        let changes = changes.collect();
        Ok(Message { changes, term: response.header().map_or(0, ResponseHeader::raft_term) })
    }

    async fn request_progress(&mut self) -> Result<(), EtcdError> {
        Ok(WatchStream::request_progress(self).await?)
    }
}

fn entry(kv: &KeyValue) -> Entry {
    Entry { value: kv.value().to_vec(), mod_revision: kv.mod_revision() }
}

/// Keys of ours are UTF-8; a foreign one that is not keeps what is readable of it.
pub(super) fn key(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

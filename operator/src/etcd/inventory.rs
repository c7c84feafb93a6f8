//! What etcd holds of all resources.

use etcd_client::{GetOptions, GetResponse, Txn, TxnOp, TxnOpResponse};
use fusebox::etcd::end_of;
use fusebox_policy::keys::{Key, Keys};

use super::Etcd;
use crate::ports::{Document, Fence, Inventory, Unavailable};

/// How many keys are read at once.
const PAGE: i64 = 500;

/// A key, its value, if asked for, and when it was written last.
type Found = (String, Vec<u8>, Fence);

impl Etcd {
    /// All of it.
    pub(super) async fn all(&self) -> Result<Inventory, Unavailable> {
        let mut inventory = Inventory::default();
        for kind in ["policy", "config", "fleet", "raw"] {
            let prefix = format!("{}{kind}/", self.keys.prefix());
            let options = GetOptions::new();
            let options = if kind == "raw" { options } else { options.with_keys_only() };
            let found = self.range(&prefix, options).await?;
            inventory.documents.extend(found.into_iter().filter_map(|(key, list, at)| {
                let (Key::Policy(of) | Key::Config(of) | Key::Fleet(of) | Key::Raw(of)) =
                    self.keys.parse(&key)?
                else {
                    return None;
                };
                Some(Document { of, key, at, holds: serde_json::from_slice(&list).unwrap_or_default() })
            }));
        }
        let none = Keys::raw_claim("");
        for prefix in self.allowed.iter().filter(|prefix| !prefix.is_empty()) {
            let found = self.range(&Keys::raw_claim(prefix), GetOptions::new()).await?;
            inventory.claims.extend(found.into_iter().filter_map(|(key, claim, _)| {
                // A claim that cannot be read is somebody else's.
                Some((key.strip_prefix(&none)?.to_owned(), serde_json::from_slice(&claim).ok()?))
            }));
        }
        // Prefixes may cover each other.
        inventory.claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        inventory.claims.dedup_by(|(a, _), (b, _)| a == b);
        Ok(inventory)
    }

    /// Every key that begins with `prefix`, which must not be empty, page by page.
    async fn range(&self, prefix: &str, options: GetOptions) -> Result<Vec<Found>, Unavailable> {
        let mut from = prefix.as_bytes().to_vec();
        let mut all: Vec<Found> = Vec::new();
        loop {
            let page = options.clone().with_range(end_of(prefix)).with_limit(PAGE);
            let (_, answers) = self.link.txn(Txn::new().and_then([TxnOp::get(from, Some(page))])).await?;
            let Some(TxnOpResponse::Get(found)) = answers.first() else { return Ok(all) };
            let Some(last) = GetResponse::kvs(found).last() else { return Ok(all) };
            from = [last.key(), b"\0"].concat();
            all.extend(GetResponse::kvs(found).iter().map(|kv| {
                let at = Fence(u64::try_from(kv.mod_revision()).unwrap_or_default());
                (String::from_utf8_lossy(kv.key()).into_owned(), kv.value().to_vec(), at)
            }));
            if !found.more() {
                return Ok(all);
            }
        }
    }
}

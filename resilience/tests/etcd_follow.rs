//! The watch that every feed stands on, against a real etcd that is cut off and compacted.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;
#[path = "common/etcd.rs"]
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, WatchOptions};
use fusebox::etcd::{Change, Entry, EtcdConfig, Follow, Range, follow};
use server::{Etcd, Wire, eventually};
use tokio::time::timeout;

fn entry(value: &str, mod_revision: i64) -> Entry {
    Entry { value: value.into(), mod_revision }
}

async fn next(follow: &mut Follow) -> Change {
    timeout(Duration::from_mins(1), follow.next()).await.expect("no change").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_tells_the_range_and_then_each_change() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    client.put("/a/1", "x", None).await.unwrap();
    client.put("/b", "not of the range", None).await.unwrap();
    let mut follow = follow(EtcdConfig::new([etcd.url()]), Range::Prefix("/a/".into()));
    assert_eq!(next(&mut follow).await, Change::Snapshot(BTreeMap::from([("/a/1".into(), entry("x", 2))])));
    client.put("/a0", "after the range", None).await.unwrap();
    let both = [TxnOp::put("/a/2", "y", None), TxnOp::delete("/a/1", None)];
    let when = [Compare::version("/a/2", CompareOp::Equal, 0)];
    client.txn(Txn::new().when(when).and_then(both)).await.unwrap();
    assert_eq!(next(&mut follow).await, Change::Put { key: "/a/2".into(), entry: entry("y", 5) });
    assert_eq!(next(&mut follow).await, Change::Delete { key: "/a/1".into(), mod_revision: 5 });
}

/// R12, R13: what is compacted while the watch is away is read, compared and told; nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_and_was_compacted_during_a_cut_is_told_as_the_difference() {
    let etcd = Etcd::start().await;
    let wire = Wire::to(&etcd).await;
    let mut client = etcd.client().await;
    for key in ["/a/1", "/a/2", "/a/3"] {
        client.put(key, "x", None).await.unwrap();
    }
    let mut follow = follow(EtcdConfig::new([wire.url()]), Range::Prefix("/a/".into()));
    assert!(matches!(next(&mut follow).await, Change::Snapshot(entries) if entries.len() == 3));
    for round in 0..3 {
        let mut connected = follow.connected();
        connected.wait_for(|connected| *connected).await.unwrap();
        wire.cut(true);
        connected.wait_for(|connected| !*connected).await.unwrap();
        client.put("/a/1", format!("old {round}"), None).await.unwrap();
        client.put("/a/1", format!("new {round}"), None).await.unwrap();
        client.delete(format!("/a/{}", 2 + round), None).await.unwrap();
        let added = client.put(format!("/a/{}", 4 + round), "x", None).await.unwrap();
        let revision = added.header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
        wire.cut(false);
        let deleted = format!("/a/{}", 2 + round);
        assert_eq!(next(&mut follow).await, Change::Delete { key: deleted, mod_revision: revision });
        let put = Change::Put { key: "/a/1".into(), entry: entry(&format!("new {round}"), revision - 2) };
        assert_eq!(next(&mut follow).await, put);
        let put = Change::Put { key: format!("/a/{}", 4 + round), entry: entry("x", revision) };
        assert_eq!(next(&mut follow).await, put);
    }
    client.put("/a/9", "live", None).await.unwrap();
    assert!(matches!(next(&mut follow).await, Change::Put { key, .. } if key == "/a/9"));
}

/// What the etcd of the simulations does, checked against a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_compacted_revision_itself_is_told_of_it_and_one_from_before_ends() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for value in ["1", "2"] {
        client.put("/a", value, None).await.unwrap();
    }
    let now = client.get("/a", None).await.unwrap().kvs()[0].mod_revision();
    client.compact(now, None).await.unwrap();
    let watch = async |from| {
        let options = WatchOptions::new().with_start_revision(from);
        etcd.client().await.watch("/a", Some(options)).await.unwrap()
    };
    let mut before = watch(now - 1).await;
    eventually("the watch from before ends", async || {
        let message = before.message().await.unwrap().unwrap();
        message.canceled() && message.compact_revision() == now
    })
    .await;
    let mut at = watch(now).await;
    eventually("the watch from then tells of it", async || {
        let message = at.message().await.unwrap().unwrap();
        assert!(!message.canceled());
        message.events().iter().any(|event| event.kv().is_some_and(|kv| kv.value() == b"2"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_reads_ranges_larger_than_a_page_and_sees_leases_end() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for page in 0..11 {
        let puts: Vec<_> = (0..120)
            .map(|n| TxnOp::put(format!("/a/{:04}", page * 120 + n), "x".repeat(4096), None))
            .collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let mut follow = follow(EtcdConfig::new([etcd.url()]), Range::Prefix("/a/".into()));
    assert!(matches!(next(&mut follow).await, Change::Snapshot(entries) if entries.len() == 1320));
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.put("/a/leased", "x", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    assert!(matches!(next(&mut follow).await, Change::Put { key, .. } if key == "/a/leased"));
    client.lease_revoke(lease).await.unwrap();
    assert!(matches!(next(&mut follow).await, Change::Delete { key, .. } if key == "/a/leased"));
    drop(follow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_stays() {
    let etcd = Etcd::start().await;
    let follow = follow(EtcdConfig::new([etcd.url()]), Range::Prefix("/a/".into()));
    let mut connected = follow.connected();
    connected.wait_for(|connected| *connected).await.unwrap();
    assert!(timeout(Duration::from_secs(13), connected.changed()).await.is_err(), "asked, and answered");
}

/// Who holds keys under leases for evidence must know that, and that a connection which broke alone did not do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_etcd_is_told_as_one_of_its_leases_and_a_cut_is_not() {
    let mut etcd = Etcd::start().await;
    let wire = Wire::to(&etcd).await;
    let follow = follow(EtcdConfig::new([wire.url()]), Range::Prefix("/a/".into()));
    let (mut connected, starts) = (follow.connected(), follow.leases_restarted());
    connected.wait_for(|connected| *connected).await.unwrap();
    wire.cut(true);
    connected.wait_for(|connected| !*connected).await.unwrap();
    wire.cut(false);
    connected.wait_for(|connected| *connected).await.unwrap();
    assert_eq!(*starts.borrow(), 0);
    etcd.kill().await;
    connected.wait_for(|connected| !*connected).await.unwrap();
    etcd.run().await;
    connected.wait_for(|connected| *connected).await.unwrap();
    assert_eq!(*starts.borrow(), 1, "the same data, and leases that begin anew");
    etcd.kill().await;
    connected.wait_for(|connected| !*connected).await.unwrap();
    etcd.wipe();
    etcd.run().await;
    connected.wait_for(|connected| *connected).await.unwrap();
    assert!(*starts.borrow() > 1, "no data");
}

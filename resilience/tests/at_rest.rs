//! A fleet at rest writes nothing: a thousand instances, counted by etcd itself.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[path = "common/etcd.rs"]
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Client, GetOptions, Txn, TxnOp};
use fusebox::{Fusebox, Policy};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::{PolicyDocument, PolicyHash, Report};
use server::{Etcd, counted, eventually, weight};
use tokio::time::{Instant, sleep};

const INSTANCES: u64 = 1000;

/// Longer than two leases: who lives by then has renewed its own.
const REST: Duration = Duration::from_secs(21);

/// Two connections for each instance, in our process and in etcd's, which has our limit.
const FILES: u64 = 8 * INSTANCES;

/// Raises our limit of open files, where it is too low and may be raised.
fn files() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    // No number: unlimited.
    if limit.split_whitespace().next().unwrap().parse::<u64>().unwrap_or(u64::MAX) < FILES {
        let pid = std::process::id().to_string();
        let raise = ["--pid", &pid, &format!("--nofile={FILES}:")];
        let raised = std::process::Command::new("prlimit").args(raise).status();
        assert!(
            raised.is_ok_and(|status| status.success()),
            "this test holds {FILES} files open: allow it with `ulimit -n {FILES}`"
        );
    }
}

/// One instance of the service.
async fn instance(url: &str, n: u64) -> Fusebox {
    let (uid, name) = (format!("uid-{n}"), format!("user-{n}"));
    let variables = [
        ("FUSEBOX_SERVICE", "shop/user"),
        ("FUSEBOX_CLUSTER", "at-rest"),
        ("FUSEBOX_ETCD", url),
        ("POD_NAME", &name),
        ("POD_UID", &uid),
    ];
    let get =
        |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, v)| (*v).to_owned());
    Fusebox::from_variables(get).await.unwrap()
}

/// How many instances have reported that they run this policy.
async fn reported(client: &Client, prefix: &str, hash: &PolicyHash) -> u64 {
    let all = client.kv_client().max_decoding_message_size(64 << 20);
    let reports = all.clone().get(prefix, Some(GetOptions::new().with_prefix())).await.unwrap();
    let runs = reports.kvs().iter().filter(|kv| {
        kv.lease() != 0 && serde_json::from_slice::<Report>(kv.value()).unwrap().hash.as_ref() == Some(hash)
    });
    runs.count() as u64
}

/// What etcd has been asked, by method.
fn asked(metrics: &str) -> BTreeMap<String, u64> {
    let mut messages = BTreeMap::new();
    for line in metrics.lines() {
        let Some(labels) = line.strip_prefix("grpc_server_msg_received_total{") else { continue };
        let (labels, count) = labels.split_once("} ").unwrap();
        let method = labels.split_once("grpc_method=\"").unwrap().1.split_once('"').unwrap().0;
        // Two services may have a method of one name.
        *messages.entry(method.to_owned()).or_default() += counted(count, "");
    }
    messages
}

/// All that etcd counts as a write.
const WRITES: [&str; 5] = [
    "etcd_mvcc_put_total ",
    "etcd_mvcc_delete_total ",
    "etcd_mvcc_txn_total ",
    "etcd_debugging_mvcc_current_revision ",
    // What goes through the log, leases granted and revoked included.
    "etcd_server_proposals_committed_total ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_at_rest_renews_its_leases_and_writes_nothing() {
    files();
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let (keys, of) = (Keys::new("at-rest"), Ident::new("shop", "user"));
    let document = PolicyDocument::new("uid", Policy::compiled_in());
    client.put(keys.policy(&of), document.to_json(), None).await.unwrap();
    // One of each kind, to see that etcd counts them.
    let puts = ["x", "y"].map(|key| TxnOp::put(key, "", None));
    client.txn(Txn::new().and_then(puts)).await.unwrap();
    client.delete("x", None).await.unwrap();

    let (url, started) = (etcd.url(), Instant::now());
    let mut fleet = Vec::new();
    for n in 0..INSTANCES {
        fleet.push(instance(&url, n).await);
    }
    for instance in &fleet {
        instance.ready().await;
    }
    let ready = Instant::now() - started;
    eventually("all have reported", async || {
        reported(&client, &keys.reports(&of), &document.hash).await == INSTANCES
    })
    .await;
    let all = Instant::now() - started;

    let (before, weights) = (etcd.metrics().await, [weight("self"), etcd.weight()]);
    sleep(REST).await;
    let (after, now) = (etcd.metrics().await, [weight("self"), etcd.weight()]);

    for write in WRITES {
        let counts = (counted(&before, write), counted(&after, write));
        println!("{write}{counts:?}");
        assert!(counts.1 > 0, "etcd does not count {write}");
        assert_eq!(counts.0, counts.1, "{write}");
    }
    let (before, after) = (asked(&before), asked(&after));
    let more =
        after.iter().map(|(method, count)| (method.as_str(), count - before.get(method).unwrap_or(&0)));
    let more: BTreeMap<_, _> = more.filter(|(_, count)| *count > 0).collect();
    let seconds = REST.as_secs();
    println!("{INSTANCES} instances: ready after {ready:?}, reported after {all:?}");
    println!("asked in {seconds} s, by method: {more:?}");
    for (whose, before, now) in [("ours", weights[0], now[0]), ("etcd", weights[1], now[1])] {
        println!("{whose}: {} ms of processor in {seconds} s, {} MiB", (now.0 - before.0) * 10, now.1 / 1024);
    }
    // Leases are renewed; the reporter looks whether its key is there; a quiet watch asks whether anybody is.
    let known = ["LeaseKeepAlive", "Range", "Watch"];
    assert!(more.keys().all(|method| known.contains(method)), "{more:?}");
    // Every instance at least once in each lease's time.
    assert!(more["LeaseKeepAlive"] >= 2 * INSTANCES, "{more:?}");
    assert_eq!(reported(&client, &keys.reports(&of), &document.hash).await, INSTANCES, "all live");
}

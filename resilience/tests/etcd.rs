//! The feed and the report, against a real etcd that is killed, wiped, frozen and cut off.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;
#[path = "common/etcd.rs"]
mod server;

use std::time::Duration;

use common::{command, policy};
use etcd_client::{Client, PutOptions, WatchOptions};
use fusebox::{CommandError, Fusebox, Policy};
use fusebox_policy::policy::{CommandPolicy, RateLimit, RateScope};
use fusebox_policy::wire::{BreakerState, PolicyDocument, PolicyHash, Report};
use server::{Etcd, Wire, eventually};
use tokio::time::{Instant, sleep, timeout};

const POLICY: &str = "/fusebox/v1/demo/policy/shop/user";
const FLEET: &str = "/fusebox/v1/demo/fleet/shop/user";
const REPORT: &str = "/fusebox/v1/demo/reports/shop/user/uid-1";

/// A process under this etcd.
async fn process(url: &str, more: &[(&str, &str)]) -> Fusebox {
    let variables = [
        ("FUSEBOX_SERVICE", "shop/user"),
        ("FUSEBOX_CLUSTER", "demo"),
        ("FUSEBOX_ETCD", url),
        ("POD_NAME", "user-1"),
        ("POD_UID", "uid-1"),
    ];
    let get = |name: &str| {
        let found = more.iter().chain(&variables).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Fusebox::from_variables(get).await.unwrap()
}

/// A policy whose command has this timeout, and its hash.
fn timeout_of(millis: u64) -> (Policy, PolicyHash) {
    let policy = policy(CommandPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..command() });
    let hash = PolicyHash::of(&policy);
    (policy, hash)
}

async fn publish(client: &mut Client, millis: u64) -> PolicyHash {
    let (policy, hash) = timeout_of(millis);
    client.put(POLICY, PolicyDocument::new("uid", policy).to_json(), None).await.unwrap();
    hash
}

async fn runs(fusebox: &Fusebox, hash: &PolicyHash) {
    eventually("the policy is in force", async || fusebox.policy_hash().as_ref() == Some(hash)).await;
}

async fn reported(client: &Client) -> Option<Report> {
    let answer = client.kv_client().get(REPORT, None).await.unwrap();
    answer.kvs().first().map(|kv| serde_json::from_slice(kv.value()).unwrap())
}

async fn reports(client: &Client, what: &str, done: impl Fn(&Report) -> bool) -> Report {
    let mut last = None;
    eventually(what, async || {
        last = reported(client).await;
        last.as_ref().is_some_and(&done)
    })
    .await;
    last.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_in_force_without_restart_and_keeps_the_breaker() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let first = publish(&mut client, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    fusebox.ready().await;
    assert_eq!(fusebox.policy_hash(), Some(first.clone()));
    let c = fusebox.command("c");
    for _ in 0..4 {
        let answer = c.call(std::future::pending::<std::io::Result<()>>).await;
        assert!(matches!(answer, Err(CommandError::Timeout(limit)) if limit == Duration::from_millis(50)));
    }
    fusebox.command("getuser");
    let report = reports(&client, "the breaker is reported", |report| !report.breakers.is_empty()).await;
    assert_eq!((report.instance.as_str(), report.hash), ("user-1", Some(first)));
    assert_eq!((report.breakers[0].command.as_str(), report.breakers[0].state), ("c", BreakerState::Open));
    assert_eq!(report.breakers[0].reason, "100 % errors of 4 calls");
    let report =
        reports(&client, "so is the unknown command", |report| !report.unknown_commands.is_empty()).await;
    assert_eq!(report.unknown_commands, ["getuser"]);

    let second = publish(&mut client, 60).await;
    runs(&fusebox, &second).await;
    let report =
        reports(&client, "the new policy is reported", |report| report.hash == Some(second.clone())).await;
    assert_eq!(report.breakers[0].command, "c", "and the breaker is what it was");
    assert_eq!(common::metric(&fusebox, "breaker_transitions_total{command=\"c\",to=\"open\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_of_the_service_is_divided_by_the_instances_that_etcd_counts() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let rate = |scope| RateLimit {
        requests_per_second: 100.try_into().unwrap(),
        burst: 10.try_into().unwrap(),
        scope,
    };
    let of = |scope| policy(CommandPolicy { rate_limit: Some(rate(scope)), ..command() });
    let shared = PolicyDocument::new("uid", of(RateScope::Service));
    client.put(POLICY, shared.to_json(), None).await.unwrap();
    let fusebox = process(&etcd.url(), &[]).await;
    runs(&fusebox, &shared.hash).await;
    fusebox.command("c");
    let limit = || common::metric(&fusebox, "command_rate_limit{command=\"c\"}");
    assert_eq!(limit(), 100, "until the number is known");
    for (count, own) in [(r#"{"ready":4}"#, 25), ("{", 25), (r#"{"ready":0}"#, 100), (r#"{"ready":5}"#, 20)] {
        client.put(FLEET, count, None).await.unwrap();
        eventually(count, async || limit() == own).await;
    }
    client.delete(FLEET, None).await.unwrap();
    let alone = PolicyDocument::new("uid", of(RateScope::Instance));
    client.put(POLICY, alone.to_json(), None).await.unwrap();
    runs(&fusebox, &alone.hash).await;
    assert_eq!(limit(), 100, "and one of the instance is its own");
    client.put(POLICY, shared.to_json(), None).await.unwrap();
    runs(&fusebox, &shared.hash).await;
    assert_eq!(limit(), 20, "the last number stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_it_starts_under_the_compiled_in_policy_and_takes_up_the_real_one_later() {
    let mut etcd = Etcd::new().await;
    let fusebox = process(&etcd.url(), &[]).await;
    assert_eq!(fusebox.policy_hash(), None);
    assert_eq!(fusebox.command("c").call(|| async { std::io::Result::Ok(1) }).await.unwrap(), 1);
    assert!(timeout(Duration::from_millis(300), fusebox.ready()).await.is_err());
    etcd.run().await;
    let mut client = etcd.client().await;
    let report = reports(&client, "the compiled-in policy is reported", |_| true).await;
    assert_eq!(report.server_layer, Some(false));
    let _ = fusebox.server_layer();
    reports(&client, "the server layer is reported", |report| report.server_layer == Some(true)).await;
    assert_eq!((report.hash, report.unknown_commands), (None, Vec::new()), "nobody has named commands yet");
    let hash = publish(&mut client, 50).await;
    fusebox.ready().await;
    assert_eq!(fusebox.policy_hash(), Some(hash));
}

#[tokio::test]
async fn without_etcd_it_starts_under_the_last_good_policy_of_its_disk() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy");
    let path = file.to_str().unwrap();
    let mut etcd = Etcd::start().await;
    let url = etcd.url();
    let first = publish(&mut etcd.client().await, 100).await;
    let before = process(&url, &[("FUSEBOX_LAST_GOOD", path)]).await;
    runs(&before, &first).await;
    let second = publish(&mut etcd.client().await, 200).await;
    runs(&before, &second).await;
    let kept =
        |hash: &PolicyHash| std::fs::read_to_string(&file).is_ok_and(|text| text.contains(hash.as_str()));
    eventually("the newest is on disk", async || kept(&second)).await;
    etcd.kill().await;

    let after = process(&url, &[("FUSEBOX_LAST_GOOD", path)]).await;
    assert_eq!(after.policy_hash(), Some(second), "at once");
    after.ready().await;
    etcd.run().await;
    let third = publish(&mut etcd.client().await, 300).await;
    runs(&after, &third).await;
    reports(&etcd.client().await, "the newest", |report| report.hash.as_ref() == Some(&third)).await;
}

/// It answers with a message, which is refused until the code has said what messages look like.
#[cfg(feature = "descriptors")]
#[tokio::test]
async fn a_last_good_policy_with_a_message_is_in_force_as_soon_as_there_are_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy");
    let mut policy = policy(command());
    policy.inbound = serde_json::from_str(
        r#"{"default":{},"methods":[{"match":{"grpc":{"service":"grpc.health.v1.Health","method":"Check"}},
            "policy":{"fallback":{"message":{"json":"{}"}}}}]}"#,
    )
    .unwrap();
    let document = PolicyDocument::new("uid", policy);
    std::fs::write(&file, format!("fusebox last good {POLICY}\n{}", document.to_json())).unwrap();
    let away = Etcd::new().await;
    let fusebox = process(&away.url(), &[("FUSEBOX_LAST_GOOD", file.to_str().unwrap())]).await;
    assert_eq!(fusebox.policy_hash(), None);
    fusebox.register_descriptors(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    runs(&fusebox, &document.hash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_document_is_refused_whole_and_reported_and_a_deleted_one_changes_nothing() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let good = publish(&mut client, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    runs(&fusebox, &good).await;
    let (next, next_hash) = timeout_of(60);
    let newer = PolicyDocument::new("uid", next).to_json().replace("\"schema\":1", "\"schema\":2");
    client.put(POLICY, newer, None).await.unwrap();
    let report = reports(&client, "the refusal is reported", |report| report.rejected.is_some()).await;
    let rejected = report.rejected.unwrap();
    assert_eq!((report.hash.as_ref(), rejected.hash), (Some(&good), Some(next_hash)));
    assert_eq!(
        rejected.reason,
        "the document has schema 2, this library reads 1: upgrade the older of the two"
    );
    client.delete(POLICY, None).await.unwrap();
    let next = publish(&mut client, 70).await;
    let report =
        reports(&client, "the next good one is taken", |report| report.hash == Some(next.clone())).await;
    assert_eq!(report.rejected, None);
    client.delete(POLICY, None).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(fusebox.policy_hash(), Some(next), "the last policy stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_report_of_a_process_comes_before_its_first_policy() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let hash = publish(&mut client, 50).await;
    let (_, stale) = timeout_of(49);
    let old = format!(
        r#"{{"instance":"user-1","boot":"old","library":"x","hash":"{stale}","appliedAt":"2026-01-01T00:00:00Z"}}"#
    );
    client.put(REPORT, old, None).await.unwrap();
    let fusebox = process(&etcd.url(), &[]).await;
    reports(&client, "the policy is reported", |report| report.hash == Some(hash.clone())).await;
    let mut history = client.watch(REPORT, Some(WatchOptions::new().with_start_revision(1))).await.unwrap();
    let mut seen: Vec<Report> = Vec::new();
    while seen.last().is_none_or(|report| report.hash.as_ref() != Some(&hash)) {
        let events = history.message().await.unwrap().unwrap();
        seen.extend(
            events.events().iter().map(|event| serde_json::from_slice(event.kv().unwrap().value()).unwrap()),
        );
    }
    let hashes: Vec<_> = seen.iter().map(|report| report.hash.clone()).collect();
    assert_eq!(hashes, [Some(stale), None, Some(hash)]);
    assert!(seen[1].boot == seen[2].boot && seen[1].boot != "old");
    fusebox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_written_on_change_only_and_at_most_once_a_second() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let first = publish(&mut client, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    reports(&client, "reported", |report| report.hash == Some(first.clone())).await;
    let writes = || common::metric(&fusebox, "reports_written_total");
    let (before, started) = (writes(), Instant::now());
    let mut last = first;
    for millis in 100..140 {
        last = publish(&mut client, millis).await;
        sleep(Duration::from_millis(50)).await;
    }
    reports(&client, "the last one is reported", |report| report.hash == Some(last.clone())).await;
    // The write is in etcd before it is counted.
    sleep(Duration::from_millis(500)).await;
    let (after, passed) = (writes(), (Instant::now() - started).as_secs());
    assert!(after - before <= passed + 2, "{} writes in {passed} s", after - before);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(writes(), after, "no change, no write");
    assert_eq!(common::metric(&fusebox, "report_leases_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_is_taken_anew_and_the_report_is_back() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let hash = publish(&mut client, 50).await;
    let _fusebox = process(&etcd.url(), &[]).await;
    let before = reports(&client, "reported", |report| report.hash == Some(hash.clone())).await;
    let lease = client.get(REPORT, None).await.unwrap().kvs()[0].lease();
    client.lease_revoke(lease).await.unwrap();
    assert_eq!(reported(&client).await, None);
    let after = reports(&client, "reported again", |report| report.hash == Some(hash.clone())).await;
    assert_eq!(after, before);
    assert_ne!(client.get(REPORT, None).await.unwrap().kvs()[0].lease(), lease);
}

/// The lease is well, its key is not: deleted by hand, overwritten, or lost with an older lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_vanished_or_is_anothers_is_written_again() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let hash = publish(&mut client, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    let ours = reports(&client, "reported", |report| report.hash == Some(hash.clone())).await;
    let lease = client.get(REPORT, None).await.unwrap().kvs()[0].lease();
    client.delete(REPORT, None).await.unwrap();
    assert_eq!(reports(&client, "written again", |_| true).await, ours);

    let mut other = ours.clone();
    other.boot = "other".to_owned();
    client.put(REPORT, serde_json::to_vec(&other).unwrap(), None).await.unwrap();
    assert_eq!(reports(&client, "ours again", |report| report.boot != "other").await, ours);

    // The same bytes, under a lease that ends.
    let late = client.lease_grant(60, None).await.unwrap().id();
    let bytes = serde_json::to_vec(&ours).unwrap();
    client.put(REPORT, bytes, Some(PutOptions::new().with_lease(late))).await.unwrap();
    let held = async |client: &mut Client| client.get(REPORT, None).await.unwrap().kvs()[0].lease();
    let started = Instant::now();
    while held(&mut client).await != lease {
        assert!(Instant::now() - started < Duration::from_secs(20), "under our lease again");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(common::metric(&fusebox, "report_leases_total"), 1, "one lease all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn goodbye_takes_the_report_back_at_once() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let hash = publish(&mut client, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    reports(&client, "reported", |report| report.hash == Some(hash.clone())).await;
    fusebox.shutdown().await;
    assert_eq!(reported(&client).await, None);
    assert_eq!(fusebox.policy_hash(), Some(hash), "and the policy stays in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_etcd_and_a_wiped_one_are_taken_up_again() {
    let mut etcd = Etcd::start().await;
    let first = publish(&mut etcd.client().await, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    runs(&fusebox, &first).await;
    etcd.kill().await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(fusebox.policy_hash(), Some(first), "etcd is down, the policy is in force");
    etcd.run().await;
    let second = publish(&mut etcd.client().await, 60).await;
    runs(&fusebox, &second).await;

    etcd.kill().await;
    etcd.wipe();
    etcd.run().await;
    let client = etcd.client().await;
    reports(&client, "reported to the empty etcd", |report| report.hash == Some(second.clone())).await;
    let third = publish(&mut etcd.client().await, 70).await;
    runs(&fusebox, &third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_of_two_is_enough_whichever_it_is() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let wires = [Wire::to(&etcd).await, Wire::to(&etcd).await];
    let fusebox = process(&wires.each_ref().map(Wire::url).join(","), &[]).await;
    for (turn, dead) in [(1, 0), (2, 1), (3, 0)] {
        wires[1 - dead].cut(false);
        wires[dead].cut(true);
        let hash = publish(&mut client, 100 * turn).await;
        runs(&fusebox, &hash).await;
        reports(&client, "the report goes the same way", |report| report.hash.as_ref() == Some(&hash)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silently_dead_etcd_is_noticed_and_a_living_one_again() {
    let etcd = Etcd::start().await;
    let first = publish(&mut etcd.client().await, 50).await;
    let fusebox = process(&etcd.url(), &[]).await;
    runs(&fusebox, &first).await;
    let connected = || common::metric(&fusebox, "feed_connected") == 1;
    eventually("connected", async || connected()).await;
    etcd.freeze(true);
    let frozen = Instant::now();
    eventually("silence is noticed", async || !connected()).await;
    println!("noticed after {:?}", Instant::now() - frozen);
    etcd.freeze(false);
    let second = publish(&mut etcd.client().await, 60).await;
    runs(&fusebox, &second).await;
    eventually("connected", async || connected()).await;
}

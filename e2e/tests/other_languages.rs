//! What other languages do with etcd, in Go and on a real etcd: Viper's remote provider, any etcd client, and a
//! service without our library that takes part in `Enforced`.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[path = "../../resilience/tests/common/etcd.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use etcd_client::Client;
use fusebox_policy::Policy;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::policy::{BreakerPolicy, CommandPolicy, Inbound, Outbound};
use fusebox_policy::v1alpha1::ResilientService;
use fusebox_policy::wire::{PolicyDocument, Report};
use server::{Etcd, counted, eventually};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const GO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");

/// The program of e2e/go, built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-languages");
        let mut build = std::process::Command::new("go");
        build.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").current_dir(GO);
        let output = build.env("GOFLAGS", "-mod=readonly -buildvcs=false").output().expect(
            "these tests build e2e/go: install Go as new as e2e/go/go.mod says, and put `go` on the PATH",
        );
        assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

/// A running program of e2e/go; it ends with this value.
struct Go {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Go {
    fn run(arguments: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What it says next.
    async fn says(&mut self) -> String {
        let line = timeout(std::time::Duration::from_mins(1), self.lines.next_line()).await;
        line.expect("it says nothing").unwrap().expect("it ended")
    }
}

/// A write that comes before the watch is one that nobody watches.
async fn watched(etcd: &Etcd) {
    eventually("the key is watched", async || {
        counted(&etcd.metrics().await, "etcd_debugging_mvcc_watcher_total ") == 1
    })
    .await;
}

/// What the example declares, as the operator writes it.
fn declared(timeout: u64) -> (Keys, Ident, String, (String, String)) {
    let yaml = include_str!("../../examples/user.yaml").replace("1000", &timeout.to_string());
    let resource: ResilientService = serde_saphyr::from_str(&yaml).unwrap();
    let config = resource.spec.config.unwrap();
    let raw = config.etcd_keys.into_iter().map(|(key, value)| (key, value.0)).next().unwrap();
    let of = Ident::new(resource.metadata.namespace.unwrap(), resource.metadata.name.unwrap());
    (Keys::new("demo"), of, config.document.unwrap().to_string(), raw)
}

#[tokio::test]
async fn viper_reads_the_config_document_and_sees_it_change() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let (keys, of, document, _) = declared(1000);
    let key = keys.config(&of);
    client.put(key.as_str(), document, None).await.unwrap();
    let mut go = Go::run(&["viper", &etcd.url(), &key]);
    assert_eq!(go.says().await, "timeout 1000");
    watched(&etcd).await;
    client.put(key.as_str(), declared(2500).2, None).await.unwrap();
    assert_eq!(go.says().await, "timeout 2500");
}

#[tokio::test]
async fn any_client_of_etcd_watches_a_raw_key() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let (_, _, _, (key, value)) = declared(1000);
    client.put(key.as_str(), value, None).await.unwrap();
    let mut go = Go::run(&["watch", &etcd.url(), &key]);
    assert_eq!((key.as_str(), go.says().await.as_str()), ("service.user.timeout", "value 1000"));
    for timeout in [2500, 300] {
        let (_, _, _, (key, value)) = declared(timeout);
        client.put(key, value, None).await.unwrap();
        assert_eq!(go.says().await, format!("value {timeout}"));
    }
}

/// A policy that a service which only knows timeouts can enforce, or one that it cannot.
fn published(millis: u64, breaker: Option<BreakerPolicy>) -> PolicyDocument {
    let command = CommandPolicy {
        timeout_ms: Some(millis.try_into().unwrap()),
        circuit_breaker: breaker,
        ..CommandPolicy::default()
    };
    let outbound = Outbound { commands: [("find_user".to_owned(), command)].into(), ..Outbound::default() };
    PolicyDocument::new("uid", Policy { inbound: Inbound::default(), outbound, shadow: None })
}

/// The report, which follows the published schema, once it is as it should be.
async fn reported(client: &Client, key: &str, what: &str, done: impl Fn(&Report) -> bool) -> Report {
    let schema = include_str!("../../docs/reference/report-v1.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let mut last = None;
    eventually(what, async || {
        let answer = client.kv_client().get(key, None).await.unwrap();
        last = answer.kvs().first().map(|kv| {
            schema.validate(&serde_json::from_slice(kv.value()).unwrap()).unwrap();
            serde_json::from_slice::<Report>(kv.value()).unwrap()
        });
        last.as_ref().is_some_and(&done)
    })
    .await;
    last.unwrap()
}

#[tokio::test]
async fn a_service_in_go_takes_part_in_enforced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let (keys, of) = (Keys::new("demo"), Ident::new("shop", "user"));
    let (policy, report) = (keys.policy(&of), keys.report(&of, "uid-1"));
    let mut go = Go::run(&["report", &etcd.url(), "demo", "shop/user", "uid-1"]);
    let first = reported(&client, &report, "it is there", |_| true).await;
    assert_eq!((first.hash, first.rejected), (None, None), "before the first policy");

    // Under a lease of ten seconds.
    let answer = client.get(report.as_str(), None).await.unwrap();
    let lease = client.lease_time_to_live(answer.kvs()[0].lease(), None).await.unwrap();
    assert_eq!((lease.granted_ttl(), lease.ttl() > 0), (10, true));

    let mut last = None;
    for millis in [250, 300] {
        let document = published(millis, None);
        client.put(policy.as_str(), document.to_json(), None).await.unwrap();
        let hash = Some(document.hash);
        last = Some(reported(&client, &report, "the policy is in force", |report| report.hash == hash).await);
    }
    let last = last.unwrap();
    assert_eq!((last.boot == first.boot, last.applied_at > first.applied_at), (true, true));

    // What it cannot enforce it refuses, and says so; what was in force stays.
    let breaker = published(300, Some(BreakerPolicy::default()));
    client.put(policy.as_str(), breaker.to_json(), None).await.unwrap();
    let refused =
        reported(&client, &report, "a breaker is refused", |report| report.rejected.is_some()).await;
    let rejected = refused.rejected.unwrap();
    assert_eq!((refused.hash, rejected.hash), (last.hash.clone(), Some(breaker.hash)));
    assert!(rejected.reason.contains("circuitBreaker"), "{}", rejected.reason);
    let newer = published(400, None).to_json().replace("\"schema\":1", "\"schema\":2");
    client.put(policy.as_str(), newer, None).await.unwrap();
    let says = |report: &Report| report.rejected.as_ref().is_some_and(|r| r.reason.contains("schema 2"));
    let refused = reported(&client, &report, "a newer schema is refused", says).await;
    assert_eq!(refused.hash, last.hash);

    // It says goodbye: by its id, which is ours.
    let pid = go.child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    eventually("the report is gone with its lease", async || {
        client.kv_client().get(report.as_str(), None).await.unwrap().kvs().is_empty()
    })
    .await;
    assert!(go.child.wait().await.unwrap().success());
}

/// The page's example is the program that was tested.
#[test]
fn the_page_quotes_the_tested_program() {
    let page = include_str!("../../docs/other-languages.md");
    let source = include_str!("../go/report.go");
    let quoted: Vec<_> = page
        .split("```go\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the end of the code").0)
        .collect();
    assert_eq!(quoted.len(), 2, "what it knows and how it reports");
    for code in quoted {
        assert!(source.contains(code), "not in e2e/go/report.go:\n{code}");
    }
}

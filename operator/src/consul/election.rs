//! Three real servers of Consul, whose leader is killed under a stream of writes.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use fusebox_cluster::tools;
use fusebox_policy::keys::Ident;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::drift::Drifted;
use crate::model::Entry;

const NODE: &str = "fusebox-demo-3";
const SERVICE: &str = "user.service";
/// Registered all the time.
const LIVE: [&str; 3] = ["l1", "l2", "l3"];
/// Of somebody else, on our node.
const FOREIGN: &str = "x";
/// Of another resource: what somebody deletes after each election.
const LOST: &str = "lost";
const ROUNDS: usize = 3;
/// Longer than the watch of a node that goes on changing takes from one question to the next.
const SEEN: Duration = Duration::from_secs(2);

struct Server {
    folder: TempDir,
    /// HTTP, servers among themselves, gossip here and afar.
    ports: [u16; 4],
    child: Option<Child>,
}

struct Group(Vec<Server>);

impl Group {
    async fn start() -> Self {
        let mut held = Vec::new();
        for _ in 0..12 {
            held.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<u16> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(held);
        let server = |ports: &[u16]| Server {
            folder: tempfile::tempdir().unwrap(),
            ports: ports.try_into().unwrap(),
            child: None,
        };
        let mut group = Self(ports.chunks(4).map(server).collect());
        (0..3).for_each(|n| group.run(n));
        until("the first leader", async || group.leader().await.is_some()).await;
        group
    }

    fn run(&mut self, n: usize) {
        let gossip: Vec<u16> = self.0.iter().map(|server| server.ports[2]).collect();
        let Server { folder, ports: [http, rpc, lan, wan], child } = &mut self.0[n];
        *child = Some(
            Command::new(tools::find("consul").unwrap())
                .args(["agent", "-server", "-bootstrap-expect=3", "-bind=127.0.0.1", "-client=127.0.0.1"])
                .args(["-log-level=warn", "-hcl=disable_update_check = true"])
                .args([format!("-node=server-{n}"), format!("-data-dir={}", folder.path().display())])
                .args([format!("-http-port={http}"), format!("-server-port={rpc}")])
                .args([format!("-serf-lan-port={lan}"), format!("-serf-wan-port={wan}")])
                .args(["-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-retry-interval=1s"])
                .args(
                    gossip
                        .iter()
                        .filter(|port| *port != lan)
                        .map(|port| format!("-retry-join=127.0.0.1:{port}")),
                )
                .arg("-hcl=performance { raft_multiplier = 1 }")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap(),
        );
    }

    fn http(&self, n: usize) -> Http {
        let address = format!("http://127.0.0.1:{}", self.0[n].ports[0]);
        Http::new(&ConsulConfig { address, ..ConsulConfig::default() }).unwrap()
    }

    /// Whom a server that runs takes for the leader, of those that run.
    async fn leader(&self) -> Option<usize> {
        for n in (0..3).filter(|n| self.0[*n].child.is_some()) {
            let Ok(Some(leader)) = self.http(n).get::<String>("/v1/status/leader").await else { continue };
            let is = |server: &Server| {
                leader.ends_with(&format!(":{}", server.ports[1])) && server.child.is_some()
            };
            if let Some(at) = self.0.iter().position(is) {
                return Some(at);
            }
        }
        None
    }

    /// How many vote, by what this server knows.
    async fn voters(&self, n: usize) -> usize {
        let known = self.http(n).get::<serde_json::Value>("/v1/operator/raft/configuration").await;
        let Ok(Some(known)) = known else { return 0 };
        known["Servers"].as_array().into_iter().flatten().filter(|server| server["Voter"] == true).count()
    }

    /// An address behind which any server that runs answers.
    async fn front(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ports: Vec<u16> = self.0.iter().map(|server| server.ports[0]).collect();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut ports = ports.clone();
                fastrand::shuffle(&mut ports);
                tokio::spawn(async move {
                    for port in ports {
                        if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                            return;
                        }
                    }
                });
            }
        });
        address
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = timeout(Duration::from_mins(3), async {
        while !done().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

fn entry(id: &str) -> Entry {
    let (owner, resource) = if id == LOST { ("v", "shop/lost") } else { ("u", "shop/user") };
    let meta = [(mark::CLUSTER, "demo"), (mark::OWNER, owner), (mark::RESOURCE, resource)];
    Entry {
        id: id.into(),
        name: SERVICE.into(),
        address: "10.0.0.1".into(),
        port: 1,
        tags: Vec::new(),
        meta: meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        passing: Some(true),
    }
}

fn gone(id: &str) -> CatalogOp {
    CatalogOp::Deregister { id: id.into(), name: SERVICE.into() }
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    written: AtomicUsize,
    unanswered: AtomicUsize,
    refused: AtomicUsize,
    read: AtomicUsize,
    unread: AtomicUsize,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }
}

fn one(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

/// Registers and removes, always from what it has just read.
async fn write(consul: Arc<Consul>, fence: Fence, counts: Arc<Counts>) {
    while counts.goes_on() {
        sleep(Duration::from_millis(5)).await;
        let Ok(there) = consul.node(NODE).await else {
            one(&counts.unread);
            continue;
        };
        let more = (0..8).map(|n| format!("m{n}")).filter(|_| fastrand::bool());
        let wanted: BTreeSet<String> = LIVE.iter().map(|&id| id.to_owned()).chain(more).collect();
        let come = wanted.iter().filter(|id| !there.entries.contains_key(*id));
        let mut ops: Vec<_> = come.map(|id| CatalogOp::Register(entry(id))).collect();
        let ours = there.entries.values().filter(|entry| entry.is_of("demo", "u"));
        ops.extend(ours.filter(|entry| !wanted.contains(&entry.id)).map(|entry| gone(&entry.id)));
        match consul.transact(fence, NODE, &ops).await {
            Ok(()) => one(&counts.written),
            Err(TxnError::Unavailable(_)) => one(&counts.unanswered),
            Err(error) => panic!("{error}"),
        }
    }
}

/// One that was deposed, and does not know.
async fn write_late(consul: Arc<Consul>, late: Fence, counts: Arc<Counts>) {
    while counts.goes_on() {
        sleep(Duration::from_millis(5)).await;
        match consul.transact(late, NODE, &LIVE.map(gone)).await {
            Err(TxnError::Fenced) => one(&counts.refused),
            Err(TxnError::Unavailable(_)) => {}
            done => panic!("a late write: {done:?}"),
        }
    }
}

/// What is read is never less than what there always is.
async fn read(consul: Arc<Consul>, counts: Arc<Counts>) {
    while counts.goes_on() {
        sleep(Duration::from_millis(5)).await;
        match (consul.node(NODE).await, consul.nodes().await) {
            (Ok(there), Ok(nodes)) => {
                let missing: Vec<_> =
                    LIVE.iter().chain([&FOREIGN]).filter(|id| !there.entries.contains_key(**id)).collect();
                assert!(there.exists && missing.is_empty(), "{missing:?} of {there:?}");
                assert_eq!(nodes, [NODE]);
                one(&counts.read);
            }
            _ => one(&counts.unread),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_under_writes_costs_no_entry_and_lets_no_late_write_in() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut group = Group::start().await;
    let config = ConsulConfig { address: group.front().await, ..ConsulConfig::default() };
    // A process has one; each of these is as busy as a process.
    let process = || Arc::new(Consul::new(Http::new(&config).unwrap(), "demo"));
    let consul = process();
    let mut fences = Vec::new();
    for epoch in [1, 2] {
        let epoch = Epoch { epoch, holder: format!("operator-{epoch}"), ..Epoch::default() };
        until("an epoch", async || {
            let _ = consul.swap_epoch(fences.last().copied(), &epoch).await;
            matches!(consul.read_epoch().await, Ok(Some((is, _))) if is == epoch)
        })
        .await;
        fences.push(consul.read_epoch().await.unwrap().unwrap().1);
    }
    let mut ops = vec![CatalogOp::EnsureNode];
    ops.extend(LIVE.iter().chain([&LOST]).map(|id| CatalogOp::Register(entry(id))));
    until("the first entries", async || consul.transact(fences[1], NODE, &ops).await.is_ok()).await;
    let foreign = json!({ "Node": NODE, "Address": "127.0.0.1", "SkipNodeUpdate": true,
        "Service": { "ID": FOREIGN, "Service": "theirs" } });
    let put = async |path: &str, body: &serde_json::Value| {
        let done = Http::new(&config).unwrap().put(path, body.to_string()).await;
        matches!(done, Ok((200, _)))
    };
    until("a foreign entry", async || put("/v1/catalog/register", &foreign).await).await;

    let (tell, mut told) = mpsc::unbounded_channel();
    consul.node(NODE).await.unwrap();
    tokio::spawn(consul.clone().follow_drift(tell));
    let counts = Arc::new(Counts::default());
    let mut busy = tokio::task::JoinSet::new();
    busy.spawn(write(consul.clone(), fences[1], counts.clone()));
    busy.spawn(write_late(process(), fences[0], counts.clone()));
    busy.spawn(read(process(), counts.clone()));
    let lost = json!({ "Node": NODE, "ServiceID": LOST });
    let (of, again) = (Drifted::Of(Ident::new("shop", "lost")), [CatalogOp::Register(entry(LOST))]);
    for round in 0..ROUNDS {
        let mut leader = None;
        until("a leader", async || {
            leader = group.leader().await;
            leader.is_some()
        })
        .await;
        let leader = leader.unwrap();
        let start = Instant::now();
        group.0[leader].child.take().unwrap().kill().await.unwrap();
        // What was on its way at that moment may still be answered; this many are not.
        let before = counts.written.load(SeqCst);
        until("writes are taken again", async || counts.written.load(SeqCst) > before + 2).await;
        let took = Instant::now().duration_since(start).as_secs_f64();
        println!("round {round}: server-{leader} was killed, writes are taken again after {took:.1} s");
        // And the watch of what others do goes on. What it had not seen yet it cannot miss: then once more.
        until("its owner is woken", async || {
            while told.try_recv().is_ok() {}
            if !put("/v1/catalog/deregister", &lost).await {
                return false;
            }
            let woken = async { while told.recv().await.as_ref() != Some(&of) {} };
            let woken = timeout(Duration::from_secs(5), woken).await.is_ok();
            until("it is registered again", async || consul.transact(fences[1], NODE, &again).await.is_ok())
                .await;
            if !woken {
                // What is there for a moment only it need not see, and so not its end either.
                sleep(SEEN).await;
            }
            woken
        })
        .await;
        group.run(leader);
        // Known is not enough: of three of whom one has no vote yet, the next leader to be killed leaves no majority.
        until("all three vote again", async || group.voters(leader).await == 3).await;
    }
    counts.stop.store(true, SeqCst);
    while let Some(done) = busy.join_next().await {
        done.unwrap();
    }
    let [written, unanswered, refused, read, unread] =
        [&counts.written, &counts.unanswered, &counts.refused, &counts.read, &counts.unread]
            .map(|counter| counter.load(SeqCst));
    assert!(refused > 0 && read > 0, "somebody was late, somebody read");
    println!(
        "{ROUNDS} leaders killed: {written} writes taken, {unanswered} without an answer; {refused} late ones refused, \
         0 taken; {read} reads, all whole, {unread} without an answer"
    );
}

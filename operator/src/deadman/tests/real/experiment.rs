//! The experiment: three processes, one of them the leader at a time, at Consul's shortest TTL, rotations and kills:
//! 40, or 1,000 with `FUSEBOX_LONG=1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Process, SERVICE, TTL, adapter, check, register, server, until};

/// Reads the node's check again and again.
struct Reader {
    critical: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Reader {
    fn start(server: &Arc<server::Consul>) -> Self {
        let (critical, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (server, counts) = (server.clone(), (critical.clone(), reads.clone()));
        let running = tokio::spawn(async move {
            loop {
                let passing = server.get(&format!("{SERVICE}?passing")).await;
                if passing.as_array().unwrap().len() != 2 {
                    counts.0.fetch_add(1, SeqCst);
                }
                counts.1.fetch_add(1, SeqCst);
                sleep(Duration::from_millis(10)).await;
            }
        });
        Self { critical, reads, running }
    }

    fn stop(self) -> (usize, usize) {
        assert!(!self.running.is_finished(), "the reader failed");
        self.running.abort();
        (self.reads.load(SeqCst), self.critical.load(SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_and_kills_turn_nothing_critical_and_the_end_of_all_does() {
    let rotations = if fusebox_processes::long() { 1000 } else { 40 };
    let server = Arc::new(server::Consul::start(&[]).await);
    let consul = adapter(&server, None);
    register(&consul).await;
    // Each has a TTL of its own, so that every change of the leader is a rotation.
    let ttl = |place: usize| TTL + Duration::from_secs(place as u64);
    let mut processes: Vec<_> = (0..3).map(|place| Process::start(&server, place == 0, ttl(place))).collect();
    until("the first dead man", async || check(&consul).await.is_some()).await;
    let reader = Reader::start(&server);

    let mut rng = Rng::with_seed(1);
    let (mut leader, mut last, mut kills, mut most) = (0, check(&consul).await, 0, 0);
    for _ in 0..rotations {
        leader = (leader + rng.usize(1..3)) % 3;
        // For a moment there may be two, or none.
        if rng.bool() {
            processes[leader].leads.send_replace(true);
        }
        for (place, process) in processes.iter().enumerate() {
            process.leads.send_replace(place == leader);
        }
        until("another session", async || {
            let now = check(&consul).await;
            now != last && now.is_some_and(|check| check.passing)
        })
        .await;
        last = check(&consul).await;
        let victim = rng.usize(..6);
        if victim < 3 {
            processes[victim] = Process::start(&server, victim == leader, ttl(victim));
            kills += 1;
        }
        most = most.max(server.get("/v1/session/list").await.as_array().unwrap().len());
        sleep(Duration::from_millis(rng.u64(..500))).await;
    }

    // At rest: renewals go on, nothing moves.
    for (place, process) in processes.iter().enumerate() {
        process.leads.send_replace(place == leader);
    }
    sleep(TTL * 5 / 2).await;
    let watched = ["/v1/catalog/nodes", "/v1/session/list", SERVICE, "/v1/health/node/fusebox-demo-3"];
    let mut before = Vec::new();
    for path in watched {
        before.push(server.index(path).await);
    }
    sleep(TTL).await;
    for (path, before) in watched.into_iter().zip(before) {
        assert_eq!(server.index(path).await, before, "{path} moved at rest");
    }
    let living = server.get("/v1/session/list").await;
    assert_eq!(living.as_array().unwrap().len(), 1, "sessions leaked: {living}");
    let (reads, critical) = reader.stop();
    println!(
        "{rotations} rotations, {kills} kills, {reads} reads, {critical} critical, at most {most} sessions"
    );
    assert!(reads > rotations && critical == 0, "{critical} false criticals in {reads} reads");

    let waits = processes[leader].metrics.armed.get();
    assert_eq!(waits, 1);
    drop(processes);
    let gone = Instant::now();
    until("all are gone and the check is critical", async || {
        check(&consul).await.is_some_and(|check| !check.passing)
    })
    .await;
    let took = Instant::now() - gone;
    println!("critical {took:?} after the last one was gone");
    assert!(took > TTL / 2, "too early: {took:?}");

    // What readers see meanwhile: with `passing` nothing at all, without it every instance.
    assert_eq!(server.get(&format!("{SERVICE}?passing")).await, json!([]));
    let all = server.get(SERVICE).await;
    for instance in all.as_array().unwrap() {
        let checks = instance["Checks"].as_array().unwrap();
        let of = |status: &str| checks.iter().filter(|check| check["Status"] == status).count();
        assert_eq!((of("passing"), of("critical")), (1, 1), "its own stays passing: {instance}");
    }
    assert_eq!(all.as_array().unwrap().len(), 2);

    let _back = Process::start(&server, true, TTL);
    until("the first one back heals it", async || {
        server.get(&format!("{SERVICE}?passing")).await.as_array().unwrap().len() == 2
    })
    .await;
}

//! A server that is stopped (SIGSTOP): it takes connections and never answers.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::servers::{channel, compare, fusebox, healthy};

const CHILD: &str = "FUSEBOX_TEST_CHILD";

/// The other process: not a test, but what the test below runs.
#[tokio::test]
#[ignore = "run by the test beside it, as a process of its own"]
async fn child() {
    if std::env::var_os(CHILD).is_some() {
        println!("listens={}", healthy().await);
        std::future::pending::<()>().await;
    }
}

async fn process() -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "frozen::child", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the process tells its address");
        if let Some((_, address)) = line.split_once("listens=") {
            // What it writes later must find somebody who reads.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (child, address.parse().unwrap());
        }
    }
}

async fn signal(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn a_frozen_server_costs_few_calls() {
    let fusebox = fusebox();
    let (child, frozen) = process().await;
    let addresses = [healthy().await, healthy().await, frozen];
    // Connections exist before it freezes.
    let before = channel(&fusebox, &addresses);
    for _ in 0..30 {
        HealthClient::new(before.clone()).check(HealthCheckRequest::default()).await.unwrap();
    }
    signal(&child, "-STOP").await;
    let mut connected = 0;
    for _ in 0..30 {
        connected += usize::from(
            HealthClient::new(before.clone()).check(HealthCheckRequest::default()).await.is_err(),
        );
    }
    let (ours, theirs) = compare(&fusebox, &addresses, 30).await;
    signal(&child, "-CONT").await;
    assert_eq!(theirs, 10);
    assert!(
        ours * 3 <= theirs && connected * 3 <= theirs,
        "{ours} and {connected} of 30 calls failed, {theirs} without ejection"
    );
}

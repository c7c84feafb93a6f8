//! A real Consul: whatever becomes of it, no call is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fusebox::Fusebox;
use fusebox::channel::Channel;
use fusebox::discovery::{ConsulConfig, Discovery};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::metric;
use crate::consul::Consul;
use crate::servers::{fusebox, healthy};

const SERVICE: &str = "user.service";

async fn register(consul: &Consul, id: &str, at: SocketAddr, status: &str) {
    let entry = json!({
        "Node": "fusebox-test-0", "Address": "127.0.0.1", "SkipNodeUpdate": false,
        "Service": { "ID": id, "Service": SERVICE, "Address": at.ip(), "Port": at.port() },
        "Check": { "CheckID": format!("check-{id}"), "Name": "ready", "Status": status, "ServiceID": id },
    });
    consul.ask("PUT", "/v1/catalog/register", &entry).await;
}

async fn deregister(consul: &Consul, id: &str) {
    let entry = json!({ "Node": "fusebox-test-0", "ServiceID": id });
    consul.ask("PUT", "/v1/catalog/deregister", &entry).await;
}

async fn dead_man(consul: &Consul, status: &str) {
    let entry = json!({
        "Node": "fusebox-test-0", "Address": "127.0.0.1",
        "Check": { "CheckID": "fusebox-dead-man", "Name": "dead man", "Status": status },
    });
    consul.ask("PUT", "/v1/catalog/register", &entry).await;
}

/// Waits, ten times as long as it ever took.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_mins(2), async {
        while !done() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Calls without a pause until it is told to end.
struct Caller {
    made: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Caller {
    fn start(channel: Channel) -> Self {
        let caller = Self { made: Arc::default(), failed: Arc::default(), end: Arc::default() };
        let (made, failed, end) =
            (Arc::clone(&caller.made), Arc::clone(&caller.failed), Arc::clone(&caller.end));
        tokio::spawn(async move {
            while !end.load(Ordering::SeqCst) {
                let checked = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
                if let Err(status) = checked {
                    failed.fetch_add(1, Ordering::SeqCst);
                    println!("a call failed: {status:?}");
                }
                made.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(5)).await;
            }
        });
        caller
    }

    /// Until so many more calls were made.
    async fn more(&self, calls: usize) {
        let goal = self.made.load(Ordering::SeqCst) + calls;
        until("calls go on", || self.made.load(Ordering::SeqCst) >= goal).await;
        assert_eq!(self.failed.load(Ordering::SeqCst), 0);
    }
}

fn count(fusebox: &Fusebox, name: &str) -> u64 {
    metric(fusebox, &format!("{name}{{service=\"{SERVICE}\",command=\"c\"}}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_whatever_becomes_of_consul() {
    let mut consul = Consul::start(&[]).await;
    let (a, b) = (healthy().await, healthy().await);
    register(&consul, "a", a, "passing").await;
    register(&consul, "b", b, "passing").await;
    let fusebox = fusebox();
    let discovery = Discovery::consul(&ConsulConfig::new(consul.url())).unwrap();
    let channel = fusebox.discover_in(&discovery, SERVICE).command("c").channel();
    until("both are found", || count(&fusebox, "endpoints") == 2).await;
    let caller = Caller::start(channel.clone());
    caller.more(20).await;

    register(&consul, "b", b, "critical").await;
    until("the critical one is left out", || count(&fusebox, "endpoints") == 1).await;
    register(&consul, "b", b, "warning").await;
    until("a warning is kept", || count(&fusebox, "endpoints") == 2).await;
    deregister(&consul, "b").await;
    until("it is deregistered", || count(&fusebox, "endpoints") == 1).await;
    register(&consul, "b", b, "passing").await;
    until("it is back", || count(&fusebox, "endpoints") == 2).await;

    // The operator and its cluster are gone: nobody vouches for them any more.
    dead_man(&consul, "critical").await;
    until("they are stale", || count(&fusebox, "endpoints_stale") == 2).await;
    let passing = consul.get(&format!("/v1/health/service/{SERVICE}?passing")).await;
    assert_eq!(passing, json!([]), "others see nobody");
    assert_eq!(count(&fusebox, "endpoints"), 2);
    caller.more(20).await;
    dead_man(&consul, "passing").await;
    until("they are vouched for again", || count(&fusebox, "endpoints_stale") == 0).await;

    consul.kill().await;
    until("the outage is noticed", || channel.unconfirmed().is_some()).await;
    caller.more(300).await;
    assert_eq!(count(&fusebox, "endpoints"), 2);

    // Back, with all data lost: its index is smaller, and its list is empty until somebody registers.
    consul.wipe();
    consul.run().await;
    let doubted = || channel.unconfirmed().is_some_and(|why| why.contains("lists no instance"));
    until("the empty list is heard, and doubted", doubted).await;
    caller.more(100).await;
    assert_eq!(count(&fusebox, "endpoints"), 2);
    register(&consul, "a", a, "passing").await;
    until("the new list is in force", || count(&fusebox, "endpoints") == 1).await;
    assert_eq!(channel.unconfirmed(), None);
    register(&consul, "b", b, "passing").await;
    until("and followed", || count(&fusebox, "endpoints") == 2).await;
    caller.more(20).await;

    // Scaled to zero, while all is well: that is believed.
    caller.end.store(true, Ordering::SeqCst);
    deregister(&consul, "a").await;
    deregister(&consul, "b").await;
    until("there is nobody", || count(&fusebox, "endpoints") == 0).await;
    let said = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(said.code(), tonic::Code::Unavailable);
    assert_eq!(said.message(), "no passing instance of user.service is registered");
    assert_eq!(caller.failed.load(Ordering::SeqCst), 0, "of {} calls", caller.made.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_token_is_needed_where_consul_asks_for_one_and_may_be_rotated() {
    let consul = Consul::start(&[
        "acl { enabled = true default_policy = \"deny\" tokens { initial_management = \"6b5b5b9e-0000-4000-8000-000000000001\" } }",
    ])
    .await;
    let token = "6b5b5b9e-0000-4000-8000-000000000001";
    let at = healthy().await;
    let entry = json!({ "Node": "n", "Address": "127.0.0.1", "Service": { "ID": "a", "Service": SERVICE, "Port": at.port() } });
    let fusebox = fusebox();
    // The token is there a moment after the server.
    let known = Discovery::consul(&ConsulConfig::new(consul.url()).token(token)).unwrap();
    let itself = fusebox.discover_in(&known, "consul").command("c").channel();
    let line = "endpoints{service=\"consul\",command=\"c\"}";
    until("Consul knows its token", || metric(&fusebox, line) == 1).await;
    drop(itself);
    consul.ask_as(token, "PUT", "/v1/catalog/register", &entry).await;
    let file = consul.write("token", "6b5b5b9e-0000-4000-8000-00000000dead");
    let discovery = Discovery::consul(&ConsulConfig::new(consul.url()).token_file(&file)).unwrap();
    let channel = fusebox.discover_in(&discovery, SERVICE).command("c").channel();
    channel.ready().await;
    let said = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap_err();
    assert!(said.message().contains("it answered 403"), "{}", said.message());
    assert!(
        said.message().contains("service:read") && !said.message().contains("dead"),
        "{}",
        said.message()
    );
    consul.write("token", token);
    until("the other token is read", || count(&fusebox, "endpoints") == 1).await;
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
}

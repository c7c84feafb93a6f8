//! One subject: it follows the key, and the first sight of each document is noted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, WatchOptions};
use fusebox::Fusebox;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use super::arrivals::{Arrivals, now};
use super::caller::{self, Load, Signals};
use super::document::{self, CLUSTER, Kind, SERVICE};
use super::rows::{Case, Subject};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who follows
    subject: Subject,
    /// Beside what
    case: Case,
    /// The URL of etcd
    #[arg(long)]
    etcd: String,
    /// The number of the last document
    #[arg(long)]
    last: u32,
    /// How long to wait for the last document, in seconds
    #[arg(long)]
    patience: u64,
    /// The file of arrivals
    #[arg(long)]
    out: PathBuf,
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    load: Load,
    /// The document in force, or seen, at the end.
    in_force: u32,
    rss_kib: Option<u64>,
}

/// How long the calls go on after the last document is seen: an older one must not come back.
const AFTER: Duration = Duration::from_millis(300);
/// The longest that the first document may take.
const FIRST: Duration = Duration::from_secs(30);

/// Follows, and prints the report.
pub fn run(args: &Args) -> Result<()> {
    // One worker: the calls have the other core.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let signals = Arc::new(Signals::default());
    let mut arrivals = Arrivals::of(args.last);
    let load = match args.subject {
        Subject::Fusebox => {
            ensure!(args.case == Case::UnderLoad, "without calls nobody sees a policy");
            under_policy(args, &runtime, &mut arrivals, &signals)?
        }
        Subject::EtcdWatch => watching(args, &runtime, &mut arrivals, &signals)?,
    };
    arrivals.write(&args.out)?;
    let report = Report { load, in_force: signals.seen.load(Relaxed), rss_kib: rss_kib() };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn under_policy(args: &Args, runtime: &Runtime, arrivals: &mut Arrivals, signals: &Signals) -> Result<Load> {
    let variables = |name: &str| match name {
        "FUSEBOX_SERVICE" => Some(SERVICE.join("/")),
        "FUSEBOX_CLUSTER" => Some(CLUSTER.to_owned()),
        "FUSEBOX_ETCD" => Some(args.etcd.clone()),
        "POD_IP" => Some("127.0.0.1".to_owned()),
        _ => None,
    };
    let fusebox = runtime.block_on(async {
        let fusebox = Fusebox::from_variables(variables).await?;
        tokio::time::timeout(FIRST, fusebox.ready()).await.context("no policy came")?;
        anyhow::Ok(fusebox)
    })?;
    caller::prepare(&fusebox);
    let load = thread::scope(|scope| {
        let calls = scope.spawn(|| caller::run(&fusebox, arrivals, signals));
        until_the_last(args, signals);
        calls.join().map_err(|_| anyhow::anyhow!("the caller panicked"))
    })?;
    runtime.block_on(fusebox.shutdown());
    Ok(load)
}

/// The bare watch, beside calls of a policy that never changes.
fn watching(args: &Args, runtime: &Runtime, arrivals: &mut Arrivals, signals: &Arc<Signals>) -> Result<Load> {
    let (etcd, last, told) = (args.etcd.clone(), args.last, Arc::clone(signals));
    let watch = runtime.spawn(async move { watch(&etcd, last, &told).await });
    let fusebox = Fusebox::fixed(document::policy()?);
    caller::prepare(&fusebox);
    let unused = &mut Arrivals::of(1);
    // What the caller sees is document 0, always; what the watch sees is told by the watch.
    let calling = Signals::default();
    let load = thread::scope(|scope| {
        let calls =
            (args.case == Case::UnderLoad).then(|| scope.spawn(|| caller::run(&fusebox, unused, &calling)));
        until_the_last(args, signals);
        calling.stop.store(true, Relaxed);
        calls.map_or(Ok(Load::default()), |calls| {
            calls.join().map_err(|_| anyhow::anyhow!("the caller panicked"))
        })
    })?;
    // It ends with the last document, or by an error; where it goes on, the last never came.
    ensure!(watch.is_finished(), "the last document did not come");
    *arrivals = runtime.block_on(watch)??;
    Ok(load)
}

async fn watch(etcd: &str, last: u32, signals: &Signals) -> Result<Arrivals> {
    let mut client = Client::connect([etcd], None).await?;
    // From the first revision on, so that document 0 comes as an event.
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch(Kind::Policy.key(), Some(options)).await?;
    let mut arrivals = Arrivals::of(last);
    loop {
        let response = stream.message().await?.context("the watch ended")?;
        let at = now();
        for event in response.events() {
            let number = event.kv().and_then(|kv| document::of_bytes(kv.value()));
            let number = number.context("a document without a number")?;
            arrivals.note(number, at);
            signals.seen.store(number, Relaxed);
            if number == last {
                return Ok(arrivals);
            }
        }
    }
}

/// Tells that it follows; stops the calls when the last document has been seen, or patience is at an end.
fn until_the_last(args: &Args, signals: &Signals) {
    println!("following");
    let end = Instant::now() + Duration::from_secs(args.patience);
    while signals.seen.load(Relaxed) != args.last && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(AFTER);
    signals.stop.store(true, Relaxed);
}

/// What of this process is in memory.
fn rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

//! The writer: one document a millisecond, when it is due, whatever became of those before.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, KvClient};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::arrivals::now;
use super::document::{Kind, MOST};

/// Where to write.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The URL of etcd
    #[arg(long)]
    etcd: String,
    /// For whom
    #[arg(long)]
    kind: Kind,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// How many documents
    #[arg(long)]
    puts: u32,
    /// How many a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// The file of puts
    #[arg(long)]
    out: PathBuf,
}

/// One put, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Put {
    number: u32,
    due: u64,
    /// Just before it was handed to the client.
    start: u64,
    /// When etcd had answered.
    end: u64,
    revision: i64,
}

/// The longest that etcd may take to answer at first.
const UP: Duration = Duration::from_secs(30);

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// Writes document 0 as soon as etcd answers, and prints etcd's version.
pub fn seed(place: &Place) -> Result<()> {
    let document = place.kind.documents(std::iter::once(0))?.remove(0);
    runtime()?.block_on(async {
        let end = Instant::now() + UP;
        loop {
            let asked = async {
                let mut client = Client::connect([&place.etcd], None).await?;
                client.put(place.kind.key(), document.clone(), None).await?;
                client.status().await
            };
            match tokio::time::timeout(Duration::from_secs(2), asked).await {
                Ok(Ok(status)) => {
                    println!("{}", status.version());
                    return Ok(());
                }
                failed => ensure!(Instant::now() < end, "etcd does not answer: {failed:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Writes all others, and the file of puts.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.puts > 0 && args.puts <= MOST, "1 to {MOST} documents");
    let documents = args.place.kind.documents(1..=args.puts)?;
    let puts = runtime()?.block_on(write(args, documents))?;
    let text = puts.iter().fold(String::new(), |mut text, put| {
        let _ = writeln!(text, "{} {} {} {} {}", put.number, put.due, put.start, put.end, put.revision);
        text
    });
    std::fs::write(&args.out, text).with_context(|| format!("cannot write {}", args.out.display()))
}

async fn write(args: &Args, documents: Vec<String>) -> Result<Vec<Put>> {
    let client = Client::connect([&args.place.etcd], None).await?;
    let (kv, key) = (client.kv_client(), args.place.kind.key());
    // The connection is made before the first put is due.
    kv.clone().get(key.clone(), None).await?;
    let mut due = pace(args.puts, args.rate);
    let (mut running, mut puts) = (JoinSet::new(), Vec::with_capacity(documents.len()));
    for (number, document) in (1..).zip(documents) {
        let at = due.recv().await.context("nobody tells the time")?;
        if number == args.puts {
            // The last is the newest for certain: of two under way etcd takes either first.
            puts.extend(running.join_all().await);
            running = JoinSet::new();
        }
        running.spawn(put(kv.clone(), key.clone(), document, number, at));
    }
    puts.extend(running.join_all().await);
    puts.into_iter().collect()
}

async fn put(mut kv: KvClient, key: String, document: String, number: u32, due: u64) -> Result<Put> {
    let start = now();
    let answer = kv.put(key, document, None).await?;
    let revision = answer.header().context("an answer without a revision")?.revision();
    Ok(Put { number, due, start, end: now(), revision })
}

/// Tells when each is due, when it is. A thread of its own: a runtime's timers tell whole milliseconds.
fn pace(puts: u32, rate: u32) -> mpsc::UnboundedReceiver<u64> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let begin = now() + 10_000_000;
    thread::spawn(move || {
        for n in 0..puts {
            let due = begin + u64::from(n) * 1_000_000_000 / u64::from(rate);
            thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
            if sender.send(due).is_err() {
                break;
            }
        }
    });
    receiver
}

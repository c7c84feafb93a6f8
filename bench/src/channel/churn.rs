//! Calls at a fixed rate, beside a list of endpoints that changes a hundred times a second, and beside one that
//! does not.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use fusebox::discovery::{Discovery, Endpoint, Following, Source, Teller};
use hdrhistogram::Histogram;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep_until};
use tonic::client::Grpc;
use tonic::transport::channel::Change;

use super::hello::Hello;
use super::row::{Row, cpu_nanos};
use super::subject::{address, discover, fusebox, transport};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of the server
    #[arg(long)]
    port: u16,
    /// What the calls go over
    #[arg(value_enum)]
    kind: Kind,
    /// How many endpoints
    #[arg(long, default_value_t = 1000)]
    endpoints: u32,
    /// Changes a second: each takes one endpoint away and adds one
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// Calls a second, each sent when it is due
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// How long with changes in all, and as long without, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The discovered channel under a command's policy
    Fusebox,
    /// tonic's own balanced channel
    TonicBalance,
}

/// With and without changes in turn, so many times.
const PARTS: u32 = 6;
/// Calls that do not count, for connections to be there.
const WARM_UP: Duration = Duration::from_secs(5);

const BENCH: &str = "churn";

pub fn run(args: &Args) -> Result<()> {
    // One thread for calls and changes: what the changes hold up is held up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listed = (0..args.endpoints).collect::<Vec<_>>();
        match args.kind {
            Kind::Fusebox => {
                let (lists, told) = mpsc::unbounded_channel();
                let discovery = Discovery::new(Moving(Mutex::new(Some(told))));
                let channel = discover(&fusebox(true)?, &discovery).channel();
                let mut list = Listed { lists, args, first: 0 };
                list.tell()?;
                channel.ready().await;
                measure(args, &Grpc::new(channel), || list.change()).await
            }
            Kind::TonicBalance => {
                let (channel, changes) = tonic::transport::Channel::balance_channel(listed.len() + 100);
                for n in listed {
                    changes.try_send(Change::Insert(n, transport(address(n, args.port))?))?;
                }
                let mut first = 0;
                let change = || {
                    let new = first + args.endpoints;
                    changes.try_send(Change::Remove(first))?;
                    changes.try_send(Change::Insert(new, transport(address(new, args.port))?))?;
                    first += 1;
                    Ok(())
                };
                measure(args, &Grpc::new(channel), change).await
            }
        }
    })
}

/// A source that tells what it is given.
#[derive(Debug)]
struct Moving(Mutex<Option<UnboundedReceiver<Vec<Endpoint>>>>);

impl Source for Moving {
    fn follow(&self, _: &str, told: Teller) -> Following {
        let lists = self.0.lock().ok().and_then(|mut lists| lists.take());
        Box::pin(async move {
            let Some(mut lists) = lists else { return };
            while let Some(list) = lists.recv().await {
                told.found(list);
            }
        })
    }
}

/// The whole list, as a catalog tells it.
struct Listed<'a> {
    lists: UnboundedSender<Vec<Endpoint>>,
    args: &'a Args,
    first: u32,
}

impl Listed<'_> {
    fn tell(&self) -> Result<()> {
        let all = self.first..self.first + self.args.endpoints;
        let endpoint =
            |n| Endpoint { id: format!("instance-{n}"), ..Endpoint::new(address(n, self.args.port)) };
        self.lists.send(all.map(endpoint).collect()).ok().context("nobody follows the list")
    }

    fn change(&mut self) -> Result<()> {
        self.first += 1;
        self.tell()
    }
}

/// What became of the calls.
struct Seen {
    latency: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
    last: Option<Instant>,
    gap: Duration,
}

impl Seen {
    fn new() -> Result<Self> {
        let latency = Histogram::new_with_max(60_000_000_000, 3)?;
        Ok(Self { latency, failed: 0, failure: None, last: None, gap: Duration::ZERO })
    }

    fn note(&mut self, due: Instant, ended: Result<(), tonic::Status>) {
        let now = Instant::now();
        if let Err(status) = ended {
            self.failed += 1;
            self.failure.get_or_insert(status.to_string());
            return;
        }
        self.latency.saturating_record((now - due).as_nanos() as u64);
        self.gap = self.gap.max(self.last.map_or(Duration::ZERO, |last| now - last));
        self.last = Some(now);
    }
}

/// What a kind of part has come to, all of them together.
struct Sum {
    seen: Rc<RefCell<Seen>>,
    changes: u32,
    cpu: u64,
    time: Duration,
}

impl Sum {
    fn new() -> Result<Self> {
        let seen = Rc::new(RefCell::new(Seen::new()?));
        Ok(Self { seen, changes: 0, cpu: 0, time: Duration::ZERO })
    }
}

async fn measure<C: Hello>(args: &Args, client: &C, mut change: impl FnMut() -> Result<()>) -> Result<()> {
    let mut warm_up = Sum::new()?;
    part(args, client, WARM_UP, None::<fn() -> Result<()>>, &mut warm_up).await?;
    let mut sums = [Sum::new()?, Sum::new()?];
    let time = Duration::from_secs(args.seconds.into()) * 2 / PARTS;
    for n in 0..PARTS {
        let [still, churn] = &mut sums;
        if n % 2 == 0 {
            part(args, client, time, None::<fn() -> Result<()>>, still).await?;
        } else {
            part(args, client, time, Some(&mut change), churn).await?;
        }
    }
    for (name, sum) in ["still", "churn"].into_iter().zip(&sums) {
        print(args, name, sum)?;
    }
    Ok(())
}

fn print(args: &Args, name: &str, sum: &Sum) -> Result<()> {
    let seen = sum.seen.borrow();
    let (subject, package) = match args.kind {
        Kind::Fusebox => ("fusebox", "fusebox"),
        Kind::TonicBalance => ("tonic-balance", "tonic"),
    };
    if let Some(failure) = &seen.failure {
        eprintln!("{} calls failed, the first: {failure}", seen.failed);
    }
    let micros = |part| seen.latency.value_at_quantile(part) as f64 / 1e3;
    let seconds = sum.time.as_secs_f64();
    for (what, unit, value) in [
        ("calls", "calls", seen.latency.len() as f64 + seen.failed as f64),
        ("failed", "calls", seen.failed as f64),
        ("changes", "changes/s", f64::from(sum.changes) / seconds),
        ("p50", "us", micros(0.5)),
        ("p99", "us", micros(0.99)),
        ("p99.9", "us", micros(0.999)),
        ("max", "us", micros(1.0)),
        ("gap", "us", seen.gap.as_nanos() as f64 / 1e3),
        ("cpu", "% of a core", sum.cpu as f64 / 1e7 / seconds),
    ] {
        Row { unit, value, ..Row::of(BENCH, format!("{name}-{what}"), subject, package) }.print()?;
    }
    Ok(())
}

/// Calls when they are due for so long, with a change when one is due, and waits for all of them.
async fn part<C: Hello>(
    args: &Args,
    client: &C,
    time: Duration,
    mut change: Option<impl FnMut() -> Result<()>>,
    sum: &mut Sum,
) -> Result<()> {
    let (begin, cpu) = (Instant::now(), cpu_nanos());
    // Between two parts nobody waits for a call.
    sum.seen.borrow_mut().last = None;
    let (seen, client, rate) = (Rc::clone(&sum.seen), client.clone(), args.rate);
    let calls = tokio::task::spawn_local(async move {
        let mut running = Vec::new();
        for n in 0.. {
            let due = begin + Duration::from_secs(1) * n / rate;
            if due >= begin + time {
                break;
            }
            sleep_until(due).await;
            let (mut client, seen) = (client.clone(), Rc::clone(&seen));
            running.push(tokio::task::spawn_local(async move {
                let ended = client.hello().await;
                seen.borrow_mut().note(due, ended);
            }));
            if n % rate == 0 {
                running.retain(|call| !call.is_finished());
            }
        }
        for call in running {
            call.await?;
        }
        Ok::<_, tokio::task::JoinError>(())
    });
    let mut due = interval(Duration::from_secs(1) / args.changes);
    while begin.elapsed() < time {
        due.tick().await;
        if let Some(change) = &mut change {
            change()?;
            sum.changes += 1;
        }
    }
    calls.await?.context("a call panicked")?;
    sum.time += begin.elapsed();
    sum.cpu += cpu_nanos() - cpu;
    Ok(())
}

//! Requests per core-second of the caller, over each channel in turn.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::alloc;
use super::hello::Hello;
use super::row::{Row, cpu_nanos, middle};
use super::subject::{ALL, Kind, Subject, address};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of the server
    #[arg(long)]
    port: u16,
    /// How many endpoints
    #[arg(long, default_value_t = 1)]
    endpoints: u32,
    /// Calls at once
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// How often each channel is called over, in turn with the others
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// How long each time, in milliseconds
    #[arg(long, default_value_t = 250)]
    millis: u64,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
}

/// Long enough for the clock's thread to fall asleep: whoever needs it pays for it.
const PAUSE: Duration = Duration::from_millis(150);
const WARM_UP: Duration = Duration::from_millis(30);
/// Calls whose allocations are counted.
const COUNTED: u64 = 2000;

const BENCH: &str = "channel";

/// Calls that were made.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    calls: u64,
    cpu: u64,
}

impl Made {
    fn per_core(self) -> f64 {
        self.calls as f64 * 1e9 / self.cpu as f64
    }
}

pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _in_runtime = runtime.enter();
    let addresses: Vec<_> = (0..args.endpoints).map(|n| address(n, args.port)).collect();
    let kinds: Vec<_> =
        ALL.into_iter().filter(|kind| args.only.is_empty() || args.only.contains(kind)).collect();
    let subjects = kinds.iter().map(|kind| Subject::new(*kind, &addresses)).collect::<Result<Vec<_>>>()?;
    for subject in &subjects {
        connect(&runtime, subject, &addresses)?;
    }
    let mut made = vec![Vec::new(); kinds.len()];
    for turn in 0..args.turns {
        // Nobody always follows the same one.
        for n in 0..kinds.len() {
            let n = (n + turn) % kinds.len();
            made[n].push(measured(&runtime, &subjects[n], args.callers, Duration::from_millis(args.millis))?);
        }
    }
    let case = format!("{}-endpoints-{}-callers", args.endpoints, args.callers);
    for (n, kind) in kinds.iter().enumerate() {
        let counted =
            alloc::during(|| drop(until(&runtime, &subjects[n], args.callers, Stop::After(COUNTED))));
        let (value, spread) = middle(made[n].iter().map(|made| made.per_core()).collect());
        let row = Row::of(BENCH, case.clone(), kind.name(), kind.package());
        let (allocs, spread) = (Some(counted as f64 / COUNTED as f64), Some(spread));
        Row { window: kind.window(), unit: "req/s per core", value, spread, allocs, ..row }.print()?;
    }
    for (n, kind) in kinds.iter().enumerate() {
        let Some(fixed) = kind.fixed().and_then(|fixed| kinds.iter().position(|kind| *kind == fixed)) else {
            continue;
        };
        // Turn by turn: what slowed one has slowed the other.
        let lost = made[n]
            .iter()
            .zip(&made[fixed])
            .map(|(own, fixed)| 100.0 * (1.0 - own.per_core() / fixed.per_core()));
        let (value, spread) = middle(lost.collect());
        let subject = format!("{}-over-{}", kind.name(), kinds[fixed].name());
        let row = Row::of(BENCH, case.clone(), subject, kind.package());
        let spread = Some(spread);
        Row { window: kind.window(), unit: "% fewer", value, spread, ..row }.print()?;
    }
    Ok(())
}

/// Calls until every endpoint has its connection.
fn connect(runtime: &Runtime, subject: &Subject, addresses: &[SocketAddr]) -> Result<()> {
    let calls = 100 * addresses.len() as u64;
    until(runtime, subject, addresses.len(), Stop::After(calls)).map(drop)
}

fn measured(runtime: &Runtime, subject: &Subject, callers: usize, time: Duration) -> Result<Made> {
    std::thread::sleep(PAUSE);
    until(runtime, subject, callers, Stop::At(WARM_UP))?;
    let begin = cpu_nanos();
    let calls = until(runtime, subject, callers, Stop::At(time))?;
    Ok(Made { calls, cpu: cpu_nanos() - begin })
}

#[derive(Clone, Copy)]
enum Stop {
    At(Duration),
    After(u64),
}

/// Each caller calls without a pause; how many calls were made. None may fail.
fn until(runtime: &Runtime, subject: &Subject, callers: usize, stop: Stop) -> Result<u64> {
    match subject {
        Subject::Tonic(clients) => all(runtime, clients, at_random, callers, stop),
        Subject::TonicInTurn(clients) => all(runtime, clients, usize::wrapping_rem, callers, stop),
        Subject::Fusebox(client) => all(runtime, std::slice::from_ref(client), at_random, callers, stop),
        Subject::TonicLayer(clients) => all(runtime, clients, at_random, callers, stop),
        Subject::FuseboxLayer(client) => all(runtime, std::slice::from_ref(client), at_random, callers, stop),
    }
}

/// Which of so many is called, whatever turn it is.
fn at_random(_: usize, of: usize) -> usize {
    fastrand::usize(..of)
}

fn all<C: Hello>(
    runtime: &Runtime,
    clients: &[C],
    which: fn(usize, usize) -> usize,
    callers: usize,
    stop: Stop,
) -> Result<u64> {
    let (tasks, begin, made) = (LocalSet::new(), Instant::now(), Rc::new(Cell::new(0)));
    let running: Vec<_> = (0..callers)
        .map(|n| {
            // Round them, each beginning with another.
            let mut clients = clients.to_vec();
            let made = Rc::clone(&made);
            tasks.spawn_local(async move {
                let mut turn = n;
                loop {
                    let over = match stop {
                        Stop::At(time) => begin.elapsed() >= time,
                        Stop::After(calls) => made.get() >= calls,
                    };
                    if over {
                        return Ok(());
                    }
                    let place = which(turn, clients.len());
                    clients[place].hello().await?;
                    made.set(made.get() + 1);
                    turn += 1;
                }
            })
        })
        .collect();
    runtime.block_on(tasks.run_until(async {
        for caller in running {
            let ended: Result<(), tonic::Status> = caller.await.context("a caller panicked")?;
            ended.context("a call failed")?;
        }
        anyhow::Ok(())
    }))?;
    if made.get() == 0 {
        bail!("no call was made");
    }
    Ok(made.get())
}

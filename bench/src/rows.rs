//! The rows there are, and one of them as a line of JSON.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::fidelity::{self, Fidelity};
use crate::grpc::serve;
use crate::measure::Plan;
use crate::subjects::{self, Case, Entry, Has};
use crate::version;

/// A case of a benchmark.
struct Row {
    bench: &'static str,
    case: &'static str,
    threads: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Timed(Case),
    Counted(Fidelity),
}

const fn timed(bench: &'static str, case: &'static str, threads: usize, what: Case) -> Row {
    Row { bench, case, threads, what: What::Timed(what) }
}

const fn counted(case: &'static str, what: Fidelity) -> Row {
    Row { bench: "B4", case, threads: 2, what: What::Counted(what) }
}

const ROWS: [Row; 14] = [
    timed("B1", "success", 1, Case::Success),
    timed("B1", "open-reject", 1, Case::OpenReject),
    timed("B1", "half-open-probe", 1, Case::HalfOpenProbe),
    timed("B2", "ready", 1, Case::Ready),
    timed("B2", "pending", 1, Case::Pending),
    timed("B3", "one-thread", 1, Case::Success),
    timed("B3", "two-threads", 2, Case::Success),
    timed("B3", "stack-one-thread", 1, Case::Ready),
    timed("B3", "stack-two-threads", 2, Case::Ready),
    counted("lost", Fidelity::Lost),
    counted("trip-delay", Fidelity::TripDelay),
    counted("over-admission", Fidelity::OverAdmission),
    timed("reload", "still", 1, Case::Success),
    timed("reload", "1000-per-second", 1, Case::Reload),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// As `list` prints it: B1, B2, B3, B4, reload. B10 is made of `serve` and `load`
    bench: String,
    /// The case of the benchmark
    case: String,
    /// The library
    subject: String,
    /// Make so many calls once and nothing else, for counting instructions; of B4: so many outcomes
    #[arg(long)]
    iters: Option<u64>,
    /// How many samples the figure is the median of
    #[arg(long, default_value_t = 9)]
    samples: u32,
}

/// What is printed. A row that could not run has `not_run` and no figures.
#[derive(Debug, Default, Serialize)]
struct Line {
    bench: &'static str,
    case: &'static str,
    subject: &'static str,
    version: &'static str,
    threads: usize,
    window: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocs: Option<f64>,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_run: Option<&'static str>,
    /// Of B10: what `serve` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'static str>,
}

/// Prints every row without measuring.
pub fn list() -> Result<()> {
    for row in &ROWS {
        for entry in &subjects::ALL {
            if let Some(line) = line(row, entry) {
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    for server in &serve::ALL {
        println!("{}", serde_json::to_string(&served(server))?);
    }
    Ok(())
}

fn served(server: &serve::Entry) -> Line {
    Line {
        bench: "B10",
        case: "served",
        subject: server.subject,
        version: version::of(server.package).unwrap_or(""),
        threads: 1,
        window: server.window,
        unit: "req/s per core",
        server: Some(server.name),
        ..Line::default()
    }
}

/// Measures one row.
pub fn run(args: &Args) -> Result<()> {
    let row = ROWS.iter().find(|row| row.bench == args.bench && row.case == args.case);
    let row = row.context("no such case; `list` prints them")?;
    let entry = subjects::ALL.iter().find(|entry| entry.name == args.subject);
    let entry = entry.context("no such subject; `list` prints them")?;
    let mut line = line(row, entry).context("it is no peer in this case")?;
    if let Some(why) = line.not_run {
        bail!("cannot run: {why}");
    }
    match row.what {
        What::Timed(case) => {
            let plan = Plan { threads: row.threads, iters: args.iters, samples: args.samples };
            let measured = (entry.measure)(case, &plan)?;
            (line.ns, line.allocs, line.value) = (Some(measured.ns), measured.allocs, Some(measured.ns));
        }
        What::Counted(what) => line.value = Some(fidelity::measure(what, args.iters)?),
    }
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

fn line(row: &Row, entry: &Entry) -> Option<Line> {
    let (has, unit) = match row.what {
        What::Timed(case) => ((entry.has)(case), "ns/op"),
        // Ours; hystrix-go's are a row of the Go program.
        What::Counted(what) if entry.name == "fusebox" => (Has::Yes(what.window()), what.unit()),
        What::Counted(_) => return None,
    };
    // A rate limit is no breaker: it stands in one row of stacks, and in those of threads.
    let out_of_place = match entry.name {
        "governor" => row.bench == "B1" || row.case.starts_with("stack"),
        // One way to share a policy is enough.
        "fusebox-call" => row.bench == "B3",
        _ => false,
    };
    let reload = row.bench == "reload" && entry.name != "fusebox";
    let (window, not_run) = match has {
        _ if out_of_place || reload => return None,
        Has::Yes(window) => (window, None),
        Has::No(why) => ("", Some(why)),
        Has::Absent => return None,
    };
    Some(Line {
        bench: row.bench,
        case: row.case,
        subject: entry.name,
        version: entry.package.and_then(version::of).unwrap_or(""),
        threads: row.threads,
        window,
        unit,
        not_run,
        ..Line::default()
    })
}

//! The load of B10, from one core that never sleeps.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::h2::Connection;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of the server
    port: u16,
    /// The server's process, for its CPU time
    #[arg(long)]
    pid: u32,
    /// Requests per second, sent when they are due whatever has come back; without it, as many as it answers
    #[arg(long)]
    rate: Option<f64>,
    /// How many connections
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// How many streams of each at once
    #[arg(long, default_value_t = 100)]
    streams: u32,
    /// How long to count, in milliseconds
    #[arg(long, default_value_t = 2000)]
    millis: u64,
    /// An answer that comes later after it was due is late
    #[arg(long, default_value_t = 100)]
    deadline_ms: u64,
}

/// What came back while it was counted.
#[derive(Debug, Default, Serialize)]
struct Report {
    seconds: f64,
    /// In time.
    ok: u64,
    /// OK after the deadline.
    late: u64,
    /// Answered, but not OK.
    refused: u64,
    /// Due, and not sent: no stream was free.
    unsent: u64,
    p50_us: f64,
    p99_us: f64,
    /// The server's CPU time per answer of any kind, and as a share of one core.
    server_cpu_us: f64,
    server_cpu_share: f64,
}

const WARM_UP: Duration = Duration::from_millis(500);

/// Loads, and prints the report.
pub fn run(args: &Args) -> Result<()> {
    let mut connections = (0..args.connections)
        .map(|_| Connection::open(args.port, args.streams))
        .collect::<Result<Vec<_>>>()?;
    let mut latency = Histogram::<u64>::new_with_max(60_000_000_000, 3)?;
    let (begin, deadline) = (Instant::now(), Duration::from_millis(args.deadline_ms).as_nanos() as u64);
    let end = WARM_UP + Duration::from_millis(args.millis);
    let mut report = Report::default();
    let mut counting = None;
    let (mut due, mut turn) = (0_u64, 0_usize);
    loop {
        let now = begin.elapsed();
        if now >= end {
            break;
        }
        if counting.is_none() && now >= WARM_UP {
            counting = Some((now, cpu_time(args.pid)?));
            (report, latency) = (Report::default(), Histogram::new_with_max(60_000_000_000, 3)?);
        }
        if let Some(rate) = args.rate {
            let by_now = (now.as_secs_f64() * rate) as u64;
            while due < by_now {
                let at = (due as f64 / rate * 1e9) as u64;
                due += 1;
                // Callers are many and do not know of each other: one without a stream has failed.
                let free = (0..connections.len()).map(|n| (turn + n) % connections.len());
                let Some(free) = free.into_iter().find(|n| connections[*n].has_room()) else {
                    report.unsent += 1;
                    continue;
                };
                turn = free + 1;
                connections[free].request(at);
            }
        }
        for connection in &mut connections {
            if args.rate.is_none() {
                while connection.has_room() {
                    connection.request(now.as_nanos() as u64);
                }
            }
            connection.flush()?;
            let mut at = None;
            connection.receive(|ended| {
                let at = *at.get_or_insert_with(|| begin.elapsed().as_nanos() as u64);
                let took = at.saturating_sub(ended.due);
                match ended.ok {
                    false => report.refused += 1,
                    true if took > deadline => report.late += 1,
                    true => report.ok += 1,
                }
                if ended.ok {
                    latency.saturating_record(took);
                }
            })?;
        }
    }
    let (from, cpu) = counting.context("the run was shorter than its warm-up")?;
    let answers = report.ok + report.late + report.refused;
    let spent = cpu_time(args.pid)?.saturating_sub(cpu).as_secs_f64();
    report.seconds = begin.elapsed().saturating_sub(from).as_secs_f64();
    report.p50_us = latency.value_at_quantile(0.5) as f64 / 1e3;
    report.p99_us = latency.value_at_quantile(0.99) as f64 / 1e3;
    report.server_cpu_us = spent * 1e6 / answers.max(1) as f64;
    report.server_cpu_share = spent / report.seconds;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The CPU time of a process: what the kernel counts of its threads, in nanoseconds.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut spent = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("no such server process")? {
        // A thread may end in between.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        spent += Duration::from_nanos(on_cpu(&text).unwrap_or_default());
    }
    ensure!(!spent.is_zero(), "the kernel does not tell the CPU time of threads");
    Ok(spent)
}

/// The first field of `schedstat`.
fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_on_the_cpu_is_the_first_field() {
        assert_eq!(super::on_cpu("3712500 240000 7\n"), Some(3_712_500));
        assert_eq!(super::on_cpu(""), None);
    }
}

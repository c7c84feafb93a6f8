//! B10: a gRPC server on one core, loaded from the other.

use anyhow::{Context, Result};
use fusebox_cluster::Progress;
use serde::Deserialize;

use super::figure::Figure;
use super::programs::Programs;
use super::rounds::in_turn;
use super::{Effort, stats};

/// What the load says came back.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Report {
    seconds: f64,
    ok: f64,
    p50_us: f64,
    p99_us: f64,
    server_cpu_us: f64,
}

/// The calls' CPU time in the overload cases: refusing is not free, and ten times as many calls of 100 us
/// leave less than ten refusals' time for each that is served.
const OVERLOADS: [(&str, &str, f64); 2] =
    [("overload-1ms", "1000", 1000.0), ("overload-100us", "100", 100.0)];
/// As many at once as keep one core busy with room to spare.
const LIMIT: &str = "20";

/// Runs every case.
pub fn run(programs: &Programs, effort: Effort, progress: Progress) -> Result<Vec<Figure>> {
    let mut servers: Vec<_> = programs
        .list()?
        .into_iter()
        .filter(|row| row.bench == "B10" && (row.server.is_some() || row.not_run.is_some()))
        .collect();
    let mut figures = Vec::new();

    let mut answered = Vec::new();
    let rounds = progress.step("B10 saturated", || {
        Ok(in_turn(&mut servers, effort.loads, |_, row| {
            let server = programs.serve(row, &[])?;
            report(&programs.load(&server, &["--millis", effort.load_millis])?)
        }))
    })?;
    for (row, rounds) in servers.iter_mut().zip(&rounds) {
        if rounds.iter().any(|report| report.ok == 0.0) {
            row.not_run = Some("nothing came back".to_owned());
        }
        let per_core: Vec<_> = rounds.iter().map(|report| 1e6 / report.server_cpu_us).collect();
        figures.push(of(row, "saturated", "req/s per core", &per_core));
        answered
            .push(stats::median(&rounds.iter().map(|report| report.ok / report.seconds).collect::<Vec<_>>()));
    }

    // One rate for all that are built on tonic: half of what it answers alone.
    let rates: Vec<_> = servers
        .iter()
        .zip(&answered)
        .map(|(row, own)| if row.go { *own } else { answered.first().copied().flatten() })
        .map(|rate| rate.map(|rate| format!("{:.0}", rate / 2.0)).unwrap_or_default())
        .collect();
    let rounds = progress.step("B10 at half load", || {
        Ok(in_turn(&mut servers, effort.loads, |n, row| {
            let rate = rates.get(n).context("no rate")?;
            let server = programs.serve(row, &[])?;
            report(&programs.load(&server, &["--millis", effort.load_millis, "--rate", rate])?)
        }))
    })?;
    for (row, rounds) in servers.iter().zip(&rounds) {
        let quantile = |of: fn(&Report) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
        figures.push(of(row, "half-load-p50", "us", &quantile(|report| report.p50_us)));
        figures.push(of(row, "half-load-p99", "us", &quantile(|report| report.p99_us)));
    }

    for (case, busy, micros) in OVERLOADS {
        let rounds = progress.step(&format!("B10 {case}"), || {
            Ok(in_turn(&mut servers, effort.loads.div_ceil(2), |_, row| {
                let args = ["--busy-us", busy, "--limit", LIMIT];
                calm_and_storm(programs, row, &args, effort.load_millis, micros)
            }))
        })?;
        let goodputs = rounds.iter().map(|rounds| goodput(rounds));
        figures.extend(
            servers.iter().zip(goodputs).map(|(row, goodput)| of(row, case, "% of capacity", &goodput)),
        );
    }
    Ok(figures)
}

/// Answers per second with ten callers, and of those in time at ten times what a core can do. Both by the
/// clock on the wall: a server that idles while it refuses must not look good.
fn calm_and_storm(
    programs: &Programs,
    row: &Figure,
    args: &[&str],
    millis: &str,
    micros: f64,
) -> Result<[f64; 2]> {
    let calm = ["--connections", "1", "--streams", "10", "--deadline-ms", "1000", "--millis", millis];
    let calm = report(&programs.load(&programs.serve(row, args)?, &calm)?)?;
    let rate = format!("{:.0}", 10.0 * 1e6 / micros);
    let storm = [
        "--connections",
        "64",
        "--streams",
        "200",
        "--deadline-ms",
        "500",
        "--rate",
        &rate,
        "--millis",
        millis,
    ];
    let storm = report(&programs.load(&programs.serve(row, args)?, &storm)?)?;
    Ok([calm, storm].map(|report| report.ok / report.seconds))
}

/// The storm's answers in percent of the capacity: the best calm round, which nothing else has slowed.
fn goodput(rounds: &[[f64; 2]]) -> Vec<f64> {
    let capacity = rounds.iter().map(|[calm, _]| *calm).fold(0.0, f64::max);
    rounds.iter().map(|[_, storm]| 100.0 * storm / capacity).collect()
}

fn report(text: &str) -> Result<Report> {
    serde_json::from_str(text.trim()).with_context(|| format!("not a report: {text}"))
}

fn of(row: &Figure, case: &str, unit: &str, values: &[f64]) -> Figure {
    Figure {
        case: case.to_owned(),
        unit: unit.to_owned(),
        value: stats::median(values),
        spread: stats::spread(values),
        server: None,
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_is_of_the_best_calm_round() {
        assert_eq!(goodput(&[[500.0, 900.0], [1000.0, 450.0]]), [90.0, 45.0]);
        assert!(goodput(&[]).is_empty());
    }
}

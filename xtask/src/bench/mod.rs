//! `cargo xtask bench`: the library beside its peers, in one run on one machine.

mod callgrind;
mod document;
mod figure;
mod grpc;
mod machine;
mod programs;
mod rows;
mod stats;
mod table;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fusebox_cluster::{Places, Progress};

use figure::Figures;
use programs::Programs;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The library: what a call costs, alone and shared, and a gRPC server under it (B1 to B4, B10)
    ///
    /// Builds `bench/` and its Go peers, then runs each row several times in turn with the others of its
    /// case, pinned to cores. Prints one Markdown table, and which targets are met. Quiet machines only:
    /// whatever else runs is measured too. A full run takes about ten minutes and writes
    /// docs/benchmarks.md.
    Library(Args),
}

const BENCHES: [&str; 6] = ["B1", "B2", "B3", "B4", "B10", "reload"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write every row as JSON, so that ratios can be computed by anyone
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds: about three minutes, wider spreads; writes no document
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas; writes no document
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = BENCHES)]
    only: Vec<String>,
    /// The document whose marked part takes the table [default: docs/benchmarks.md of a full run]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often each row is run, in turn with the others of its case.
    rounds: usize,
    /// Samples of one run.
    samples: &'static str,
    /// Outcomes of B4 by us, and by hystrix-go, which takes forty times as long.
    outcomes: [&'static str; 2],
    /// Rounds of a loaded server, and how long each loads it.
    loads: usize,
    load_millis: &'static str,
}

const FULL: Effort =
    Effort { rounds: 5, samples: "9", outcomes: ["10000000", "2000000"], loads: 5, load_millis: "2000" };
const QUICK: Effort =
    Effort { rounds: 3, samples: "5", outcomes: ["1000000", "400000"], loads: 2, load_millis: "1000" };

pub fn run(command: &Command) -> Result<()> {
    let Command::Library(args) = command;
    let checkout = Places::find()?.checkout;
    let progress = Progress::start();
    let machine = machine::describe();
    let programs = Programs::build(&checkout, progress)?;
    let effort = if args.quick { QUICK } else { FULL };
    let wanted = |bench: &str| args.only.is_empty() || args.only.iter().any(|only| only == bench);
    let mut figures = rows::run(&programs, effort, progress, wanted)?;
    if wanted("B10") {
        figures.extend(grpc::run(&programs, effort, progress)?);
    }
    let report = report(&figures, &machine, &command_line(args));
    println!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(figures.all())?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    write(&checkout, args, &report)
}

/// The whole text: how it came about, the targets, the table.
fn report(figures: &Figures, machine: &str, command: &str) -> String {
    let how = format!("Made by `{command}` on:\n\n{machine}");
    let targets = targets::markdown(&targets::evaluate(figures));
    format!("{how}\n### Targets\n\n{targets}\n### Rows\n\n{}", table::markdown(figures))
}

/// As the document tells it: what shapes the figures, not where files went.
fn command_line(args: &Args) -> String {
    let mut line = String::from("cargo xtask bench library");
    if args.quick {
        line.push_str(" --quick");
    }
    if !args.only.is_empty() {
        line.push_str(" --only ");
        line.push_str(&args.only.join(","));
    }
    line
}

fn write(checkout: &Path, args: &Args, report: &str) -> Result<()> {
    let full = !args.quick && args.only.is_empty();
    let default = full.then(|| checkout.join("docs/benchmarks.md"));
    let Some(path) = args.out.clone().or(default) else { return Ok(()) };
    let text = fs::read_to_string(&path).unwrap_or_default();
    let text = document::with_report(&text, report);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

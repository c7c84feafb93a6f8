//! `cargo xtask bench`: Fusebox beside its peers, in one run on one machine.

mod callgrind;
mod channel;
mod child;
mod document;
mod feed;
mod figure;
mod grpc;
mod judged;
mod machine;
mod output;
mod programs;
mod rounds;
mod rows;
mod stats;
mod table;
mod targets;

use anyhow::Result;
use fusebox_cluster::{Places, Progress};

use output::{Output, Run};
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
    /// The feed: from a put into etcd to the first call under the new policy, a thousand a second (B5)
    ///
    /// Beside a bare watch of etcd, and Viper's. Each run has an etcd of its own, started and ended here, and
    /// a core that calls without pause; the subjects are run in turn, three times, a minute each. Prints one
    /// Markdown table, and which targets are met. Two cores that do nothing else: whatever else runs is
    /// measured too. A full run takes about twenty minutes and writes docs/benchmarks-feed.md.
    Feed(feed::Args),
    /// The channel: what it costs a call, and calls beside a list of endpoints that never rests
    ///
    /// Over one and four endpoints, at several numbers of callers, beside fixed tonic channels and tonic's own
    /// balanced one, in turn in one process; then over a thousand endpoints of which a hundred a second are
    /// replaced. Prints one Markdown table, and which targets are met. Two cores that do nothing else: whatever
    /// else runs is measured too. A full run takes about ten minutes and writes docs/benchmarks-channel.md.
    Channel(channel::Args),
}

const BENCHES: [&str; 6] = ["B1", "B2", "B3", "B4", "B10", "reload"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fewer and shorter rounds: about three minutes, wider spreads; writes no document
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas; writes no document
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = BENCHES)]
    only: Vec<String>,
    #[command(flatten)]
    output: Output,
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
    match command {
        Command::Library(args) => library(args),
        Command::Feed(args) => feed::run(args),
        Command::Channel(args) => channel::run(args),
    }
}

const LIBRARY: &str = "cargo xtask bench library";

fn library(args: &Args) -> Result<()> {
    let checkout = Places::find()?.checkout;
    let progress = Progress::start();
    let valgrind = format!("instructions by {}", machine::tool("valgrind", &["--version"]));
    let machine = machine::describe(&[valgrind]);
    let programs = Programs::build(&checkout, programs::LIBRARY, progress)?;
    let effort = if args.quick { QUICK } else { FULL };
    let wanted = |bench: &str| args.only.is_empty() || args.only.iter().any(|only| only == bench);
    let mut figures = rows::run(&programs, effort, progress, wanted)?;
    if wanted("B10") {
        figures.extend(grpc::run(&programs, effort, progress)?);
    }
    let full = !args.quick && args.only.is_empty();
    args.output.take(&Run {
        name: LIBRARY,
        command: &command_line(args),
        machine: &machine,
        targets: &targets::evaluate(&figures),
        figures: &figures,
        document: full.then(|| checkout.join("docs/benchmarks.md")),
    })
}

/// As the document tells it: what shapes the figures, not where files went.
fn command_line(args: &Args) -> String {
    let mut line = String::from(LIBRARY);
    if args.quick {
        line.push_str(" --quick");
    }
    if !args.only.is_empty() {
        line.push_str(" --only ");
        line.push_str(&args.only.join(","));
    }
    line
}

//! The discovered channel: what it costs a call, and what a list that never rests does to the calls.

mod targets;

use std::time::Duration;

use anyhow::{Result, bail};
use fusebox_cluster::{Places, Progress};

use super::child::Running;
use super::figure::{Figure, Figures};
use super::machine;
use super::output::{Output, Run};
use super::programs::{self, ONE, OTHER, Programs, lines};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fewer turns, and ten seconds of changes: about two minutes, wider spreads; writes no document
    #[arg(long)]
    quick: bool,
    /// Only this; writes no document
    #[arg(long, value_name = "NAME", value_parser = ["overhead", "churn"])]
    only: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often each channel is called over, in turn with the others.
    turns: &'static str,
    /// Seconds with changes in all, and as many without.
    seconds: &'static str,
}

const FULL: Effort = Effort { turns: "25", seconds: "60" };
const QUICK: Effort = Effort { turns: "7", seconds: "10" };

const ENDPOINTS: [&str; 2] = ["1", "4"];
const CALLERS: [&str; 3] = ["1", "16", "128"];
const CHURNED: [&str; 2] = ["fusebox", "tonic-balance"];

const NAME: &str = "cargo xtask bench channel";

pub fn run(args: &Args) -> Result<()> {
    let checkout = Places::find()?.checkout;
    let progress = Progress::start();
    let machine = machine::describe(&[]);
    let programs = Programs::build(&checkout, programs::CHANNEL, progress)?;
    let effort = if args.quick { QUICK } else { FULL };
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| only == name);
    let mut figures = Figures::default();
    if wanted("overhead") {
        for endpoints in ENDPOINTS {
            for callers in CALLERS {
                let name = format!("channel, {endpoints} endpoints, {callers} callers");
                let args =
                    ["overhead", "--endpoints", endpoints, "--callers", callers, "--turns", effort.turns];
                figures.extend(progress.step(&name, || called(&programs, &args))?);
            }
        }
    }
    if wanted("churn") {
        for subject in CHURNED {
            let args = ["churn", subject, "--seconds", effort.seconds];
            figures.extend(progress.step(&format!("churn, {subject}"), || called(&programs, &args))?);
        }
    }
    let full = !args.quick && args.only.is_none();
    let mut command = String::from(NAME);
    if args.quick {
        command.push_str(" --quick");
    }
    if let Some(only) = &args.only {
        command.extend([" --only ", only]);
    }
    args.output.take(&Run {
        name: NAME,
        command: &command,
        machine: &machine,
        targets: &targets::evaluate(&figures),
        figures: &figures,
        document: full.then(|| checkout.join("docs/benchmarks-channel.md")),
    })
}

/// Runs the caller on core 0 beside a server of its own on core 1; the rows it prints.
fn called(programs: &Programs, args: &[&str]) -> Result<Vec<Figure>> {
    let mut server = Running::start(OTHER, programs.rust(), &["serve"], None)?;
    let port = server.line()?;
    if port.is_empty() {
        bail!("the server told no port");
    }
    let caller = Running::start(ONE, programs.rust(), &[args, &["--port", &port]].concat(), None)?;
    lines(&caller.end(Duration::from_mins(10))?)
}

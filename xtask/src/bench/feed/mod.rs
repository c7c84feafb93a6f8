//! B5: from a put into etcd to the first call under the new policy.

mod etcd;
mod latency;
mod round;
mod rows;
mod targets;

use anyhow::Result;
use fusebox_cluster::tools::{ETCD, Target};
use fusebox_cluster::{Places, Progress};

use super::machine;
use super::output::{Output, Run};
use super::programs::{self, Programs};
use super::rounds::in_turn;
use round::Bench;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Two rounds of five seconds: about three minutes, wider spreads; writes no document
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often each subject is run, in turn with the others.
    rounds: usize,
    /// How long each time, after a second that does not count.
    seconds: u32,
}

const FULL: Effort = Effort { rounds: 3, seconds: 60 };
const QUICK: Effort = Effort { rounds: 2, seconds: 5 };

const NAME: &str = "cargo xtask bench feed";

pub fn run(args: &Args) -> Result<()> {
    let places = Places::find()?;
    let progress = Progress::start();
    let server = format!("etcd {}, one member on this machine, without fsync", ETCD.version(&places)?);
    let machine = machine::describe(&[server]);
    let etcd = ETCD.ensure(&places, progress, Target::Host)?.join("etcd");
    let programs = Programs::build(&places.checkout, programs::FEED, progress)?;
    let effort = if args.quick { QUICK } else { FULL };
    let bench = Bench { etcd: &etcd, programs: &programs, seconds: effort.seconds };
    let mut subjects = programs.list()?;
    let rounds = in_turn(&mut subjects, effort.rounds, |_, row| {
        let name = format!("B5 {} {}", row.case, row.subject);
        let round = progress.step(&name, || bench.round(row))?;
        if let Some(failure) = &round.told.failure {
            progress.say(format!("{} calls failed, the first: {failure}", round.told.failed));
        }
        Ok(round)
    });
    let figures = rows::figures(&subjects, &rounds);
    let command = if args.quick { format!("{NAME} --quick") } else { NAME.to_owned() };
    args.output.take(&Run {
        name: NAME,
        command: &command,
        machine: &machine,
        targets: &targets::evaluate(&figures),
        figures: &figures,
        document: (!args.quick).then(|| places.checkout.join("docs/benchmarks-feed.md")),
    })
}

//! The load: one thread that calls without pause, on a core of its own, and sees under which policy.

use std::io::{Error, ErrorKind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use core_affinity::CoreId;
use fusebox::{Command, CommandError, Fusebox, deadline};
use serde::Serialize;

use super::arrivals::{Arrivals, now};
use super::document::{self, COMMAND, PAIR};

/// What caller and follower tell each other.
#[derive(Debug, Default)]
pub struct Signals {
    /// The newest document seen.
    pub seen: AtomicU32,
    /// No more calls.
    pub stop: AtomicBool,
}

/// What the calls came to.
#[derive(Debug, Default, Serialize)]
pub struct Load {
    pub calls: u64,
    /// Calls with another end than their own.
    pub failed: u64,
    /// Calls that showed two fields of two documents.
    pub torn: u64,
    /// Changes with such a call.
    pub torn_changes: u64,
    /// The first that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The core of the calls: etcd, writer and follower have the other.
const CORE: CoreId = CoreId { id: 0 };

/// Calls between two looks at whether to stop.
const BATCH: u32 = 256;

/// Starts what calls of this fusebox need, where the follower runs: its clock's thread belongs there.
pub fn prepare(fusebox: &Fusebox) {
    let _ = ready(fusebox.command(COMMAND).call(|| std::future::ready(Ok::<_, Error>(()))));
    fusebox.command(PAIR);
}

/// Calls until it is told to stop, and notes the first call under each document.
pub fn run(fusebox: &Fusebox, arrivals: &mut Arrivals, signals: &Signals) -> Load {
    core_affinity::set_for_current(CORE);
    let (command, pair) = (fusebox.command(COMMAND), fusebox.command(PAIR));
    let (mut load, mut current, mut torn) = (Load::default(), None, None);
    while !signals.stop.load(Relaxed) {
        for _ in 0..BATCH {
            let number = call(command, &mut load);
            if number.is_some() && number != current {
                current = number;
                let number = number.unwrap_or_default();
                arrivals.note(number, now());
                signals.seen.store(number, Relaxed);
            }
            if let Some(number) = call_pair(pair, &mut load) {
                load.torn += 1;
                if torn.replace(number) != Some(number) {
                    load.torn_changes += 1;
                }
            }
        }
    }
    load
}

/// The document that the call ran under.
fn call(command: Command, load: &mut Load) -> Option<u32> {
    let mut left = None;
    let answer = ready(command.call(|| {
        left = deadline::remaining();
        std::future::ready(Ok::<_, Error>(()))
    }));
    load.calls += 1;
    if !matches!(answer, Poll::Ready(Ok(()))) {
        load.fail(format!("{answer:?}"));
    }
    left.and_then(document::of_timeout)
}

/// A call whose error is its own and that shows its document twice: by its timeout and by whether its
/// fallback runs. The document of a call that is torn.
fn call_pair(pair: Command, load: &mut Load) -> Option<u32> {
    let (mut left, mut fell_back) = (None, false);
    let call = pair.call(|| {
        left = deadline::remaining();
        std::future::ready(Err::<(), _>(Error::from(ErrorKind::Other)))
    });
    let answer = ready(call.or_fallback(|_| fell_back = true));
    load.calls += 1;
    match answer {
        Poll::Ready(Ok(())) if fell_back => {}
        Poll::Ready(Err(CommandError::Failed(_))) if !fell_back => {}
        other => load.fail(format!("{other:?}")),
    }
    let number = left.and_then(document::of_timeout)?;
    (fell_back != document::falls_back(number)).then_some(number)
}

impl Load {
    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failure.get_or_insert(what);
    }
}

/// Polls once: no call of ours has to wait.
fn ready<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_its_document_and_a_pair_is_whole() {
        let fusebox = Fusebox::fixed(document::policy().unwrap());
        let mut load = Load::default();
        assert_eq!(call(fusebox.command(COMMAND), &mut load), Some(0));
        assert_eq!(call_pair(fusebox.command(PAIR), &mut load), None);
        assert_eq!((load.calls, load.failed, load.failure), (2, 0, None));
    }
}

//! The thread that reads the clock for everybody.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::{Now, exact};

const PERIOD: Duration = Duration::from_millis(1);

/// After so many periods in which nobody asked, it sleeps until somebody does.
const IDLE: u32 = 100;

/// The time of now; zero while the ticker sleeps. Whoever reads zero reads the clock and wakes it.
static NOW: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));

/// Whether anybody has asked since the ticker last looked. Written once a period at most, or all
/// processors would fight for it.
static ASKED: CachePadded<AtomicBool> = CachePadded::new(AtomicBool::new(false));

/// The time of now, about a millisecond old at most.
#[inline]
pub(super) fn now() -> Now {
    let now = NOW.load(Ordering::Relaxed);
    if now == 0 || !ASKED.load(Ordering::Relaxed) { ask(now) } else { Now(now) }
}

#[cold]
fn ask(now: u64) -> Now {
    ASKED.store(true, Ordering::SeqCst);
    if now != 0 {
        return Now(now);
    }
    if let Some(ticker) = ticker() {
        ticker.unpark();
    }
    exact()
}

/// The thread, started by the first who asks; None: it could not be started, and everybody reads the
/// clock.
fn ticker() -> Option<&'static Thread> {
    static TICKER: OnceLock<Option<Thread>> = OnceLock::new();
    let start = || std::thread::Builder::new().name("fusebox-ticker".to_owned()).spawn(tick);
    TICKER.get_or_init(|| start().ok().map(|handle| handle.thread().clone())).as_ref()
}

fn tick() {
    let mut idle = 0;
    loop {
        if ASKED.swap(false, Ordering::SeqCst) {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle < IDLE {
            NOW.store(exact().0, Ordering::Relaxed);
            std::thread::sleep(PERIOD);
        } else {
            NOW.store(0, Ordering::SeqCst);
            // Whoever has read zero since unparks: then this returns at once.
            std::thread::park();
            idle = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_when_nobody_asks_and_wakes_when_somebody_does() {
        let first = now();
        let deadline = first.plus(60_000_000_000);
        // Reads the word behind now's back: asking would keep it awake. Other tests may ask.
        while NOW.load(Ordering::SeqCst) != 0 && exact() < deadline {
            std::thread::sleep(PERIOD);
        }
        assert_eq!(NOW.load(Ordering::SeqCst), 0, "asleep");
        assert!(now() > first, "asleep, the clock itself is read");
        while NOW.load(Ordering::SeqCst) == 0 && exact() < deadline {
            std::thread::yield_now();
        }
        assert!(NOW.load(Ordering::SeqCst) > first.0, "awake again");
    }
}

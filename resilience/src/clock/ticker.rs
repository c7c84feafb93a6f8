//! The thread that reads the clock for everybody.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::{Now, exact};

const PERIOD: Duration = Duration::from_millis(1);

/// After so many periods in which nobody asked, it sleeps until somebody does.
const IDLE: u32 = 100;

/// Set in a time that nobody has asked for yet. The first who does clears it: so the ticker knows
/// whether it is needed, and the word is written twice a period however many ask.
const UNASKED: u64 = 1;

/// No time: the ticker sleeps. Whoever reads it reads the clock and wakes it.
const ASLEEP: u64 = UNASKED;

/// The time of now, even, or with [`UNASKED`].
static NOW: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(ASLEEP));

/// A word that is always asleep, for who must read the clock itself.
static NEVER_TICKS: AtomicU64 = AtomicU64::new(ASLEEP);

/// Where a clock finds the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source(&'static AtomicU64);

impl Source {
    /// The ticker's.
    pub(super) fn ticking() -> Self {
        Self(&NOW)
    }

    /// The clock itself, at each reading.
    pub(super) const fn exact() -> Self {
        Self(&NEVER_TICKS)
    }

    /// Whether it is read at each reading.
    pub(super) fn is_exact(self) -> bool {
        std::ptr::eq(self.0, &raw const NEVER_TICKS)
    }

    /// The time of now, about a millisecond old at most.
    #[inline]
    pub(super) fn now(self) -> Now {
        let now = self.0.load(Ordering::Relaxed);
        if now & UNASKED == 0 { Now(now) } else { self.ask(now) }
    }

    #[cold]
    #[inline(never)]
    fn ask(self, now: u64) -> Now {
        if now != ASLEEP {
            // Should the ticker be faster, the next who asks clears it.
            let _ = self.0.compare_exchange(now, now & !UNASKED, Ordering::SeqCst, Ordering::Relaxed);
            return Now(now & !UNASKED);
        }
        if !self.is_exact()
            && let Some(ticker) = ticker()
        {
            ticker.unpark();
        }
        exact()
    }
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
        idle = if NOW.swap(exact().0 | UNASKED, Ordering::SeqCst) & UNASKED == 0 { 0 } else { idle + 1 };
        if idle < IDLE {
            std::thread::sleep(PERIOD);
        } else {
            NOW.store(ASLEEP, Ordering::SeqCst);
            // Whoever has seen it asleep since unparks: then this returns at once.
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
        let source = Source::ticking();
        let first = source.now();
        let deadline = first.plus(60_000_000_000);
        // Reads the word behind now's back: asking would keep it awake. Other tests may ask.
        while NOW.load(Ordering::SeqCst) != ASLEEP && exact() < deadline {
            std::thread::sleep(PERIOD);
        }
        assert_eq!(NOW.load(Ordering::SeqCst), ASLEEP);
        assert!(source.now() > first, "asleep, the clock itself is read");
        while NOW.load(Ordering::SeqCst) == ASLEEP && exact() < deadline {
            std::thread::yield_now();
        }
        assert!(NOW.load(Ordering::SeqCst) > first.0, "awake again");
    }
}

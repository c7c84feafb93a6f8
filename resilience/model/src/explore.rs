//! Running a model in every order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many times a thread may be interrupted in one run of a model where it could have gone on; None:
/// as often as there are steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    short: Option<usize>,
    long: Option<usize>,
}

impl Bound {
    /// Every order there is.
    pub(crate) const NONE: Self = Self { short: None, long: None };

    /// So many interruptions, and so many more with `FUSEBOX_LONG=1`.
    pub(crate) const fn of(short: usize, long: usize) -> Self {
        Self { short: Some(short), long: Some(long) }
    }

    /// So many interruptions, and every order with `FUSEBOX_LONG=1`.
    pub(crate) const fn short_of(short: usize) -> Self {
        Self { short: Some(short), long: None }
    }

    fn now(self) -> Option<usize> {
        let long = std::env::var_os("FUSEBOX_LONG").is_some_and(|long| long == "1");
        if long { self.long } else { self.short }
    }
}

/// Something that must happen in one order at least, or the model says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness(Arc<AtomicBool>);

impl Witness {
    /// It has happened, if so.
    pub(crate) fn of(&self, happened: bool) {
        self.0.fetch_or(happened, Ordering::Relaxed);
    }

    /// Whether it has ever happened.
    pub(crate) fn was_seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a model in every order within the bound, and in every way that the memory model lets a thread
/// read what others write. Says how many that were.
pub(crate) fn explore(name: &str, bound: Bound, model: impl Fn() + Send + Sync + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = bound.now();
    explorer.max_branches = 10_000;
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    #[allow(clippy::disallowed_types)] // how long the exploration takes is the machine's time
    let start = std::time::Instant::now();
    explorer.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let bound = bound.now().map_or_else(|| "no bound".to_owned(), |most| format!("{most} interruptions"));
    println!("{name}: {} orders, {bound}, {:.2?}", runs.load(Ordering::Relaxed), start.elapsed());
}

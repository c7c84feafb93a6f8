//! In-memory worlds behind the ports, for the tests: they refuse what the real ones refuse, can go away, and
//! can crash the process after the n-th write.

mod catalog;
mod cluster;
mod epoch;
mod ice;
mod lease;
mod sessions;
mod store;
mod tenure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};

pub use catalog::CatalogWorld;
pub use cluster::{ClusterWorld, RouteWorld};
pub use epoch::EpochWorld;
pub use ice::Ice;
pub use lease::{LeaseClient, LeaseWorld, Weather, Wire};
pub use sessions::SessionWorld;
pub use store::StoreWorld;
pub use tenure::TenureWorld;

use crate::ports::Unavailable;

/// When writes stop to work: shared by all backends of one process, so that a crash stops them all.
#[derive(Debug)]
pub struct Crash {
    left: AtomicI64,
    answered: AtomicBool,
    writes: AtomicUsize,
}

impl Default for Crash {
    fn default() -> Self {
        Self { left: AtomicI64::new(i64::MAX), answered: AtomicBool::new(true), writes: AtomicUsize::new(0) }
    }
}

impl Crash {
    /// The process dies at the `n`-th write from now: after it, with or without its answer.
    pub fn after(&self, n: usize, answered: bool) {
        self.answered.store(answered, SeqCst);
        self.left.store(i64::try_from(n).unwrap(), SeqCst);
    }

    /// A new process: writes work again.
    pub fn restart(&self) {
        self.left.store(i64::MAX, SeqCst);
    }

    /// How many writes took place so far.
    pub fn writes(&self) -> usize {
        self.writes.load(SeqCst)
    }

    /// Did the process die?
    pub fn happened(&self) -> bool {
        self.left.load(SeqCst) <= 0
    }

    /// Does this write take place?
    fn before_write(&self) -> Result<(), Unavailable> {
        if self.left.fetch_sub(1, SeqCst) <= 0 {
            return Err(Unavailable("crashed".into()));
        }
        self.writes.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Is its answer heard?
    fn after_write(&self) -> Result<(), Unavailable> {
        if self.happened() && !self.answered.load(SeqCst) {
            return Err(Unavailable("crashed before the answer".into()));
        }
        Ok(())
    }
}

/// One backend's trouble.
#[derive(Debug, Default)]
pub struct Faults {
    /// Shared by all.
    pub crash: Arc<Crash>,
    down: AtomicBool,
}

impl Faults {
    fn of(crash: &Arc<Crash>) -> Self {
        Self { crash: crash.clone(), down: AtomicBool::new(false) }
    }

    /// The backend goes away or comes back.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, SeqCst);
    }

    fn read(&self) -> Result<(), Unavailable> {
        if self.down.load(SeqCst) { Err(Unavailable("connection refused".into())) } else { Ok(()) }
    }

    fn write<T, E: From<Unavailable>>(&self, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.read()?;
        self.crash.before_write()?;
        let done = write()?;
        self.crash.after_write()?;
        Ok(done)
    }
}

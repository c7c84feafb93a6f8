//! In-memory worlds behind the ports, for the tests: they refuse what the real ones refuse, can go away, and
//! can crash the process after the n-th write, and can show a process what was true before.

mod admission;
pub mod apiserver;
mod catalog;
mod cluster;
mod conformance;
mod epoch;
mod ice;
mod lease;
mod routes;
mod sessions;
mod store;
mod tenure;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

pub use catalog::CatalogWorld;
pub use cluster::{Cache, ClusterWorld};
pub use epoch::EpochWorld;
pub use ice::Ice;
pub use lease::{LeaseClient, LeaseWorld, Weather, Wire};
pub use routes::RouteWorld;
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
    lost: AtomicI64,
    paced: AtomicBool,
}

impl Default for Crash {
    fn default() -> Self {
        Self {
            left: AtomicI64::new(i64::MAX),
            answered: AtomicBool::new(true),
            writes: AtomicUsize::new(0),
            lost: AtomicI64::new(i64::MAX),
            paced: AtomicBool::new(false),
        }
    }
}

impl Crash {
    /// The process dies at the `n`-th write from now: after it, with or without its answer.
    pub fn after(&self, n: usize, answered: bool) {
        self.answered.store(answered, SeqCst);
        self.left.store(i64::try_from(n).unwrap(), SeqCst);
    }

    /// The `n`-th write from now takes place and its answer is lost; the process lives on.
    pub fn lose_answer(&self, n: usize) {
        self.lost.store(i64::try_from(n).unwrap(), SeqCst);
    }

    /// Was there such a write?
    pub fn lost_answer(&self) -> bool {
        self.lost.load(SeqCst) <= 0
    }

    /// Every operation waits once before it reaches its backend, and a write once more before its answer is
    /// heard, so that each is a point where a pass can be interrupted.
    pub fn pace(&self, paced: bool) {
        self.paced.store(paced, SeqCst);
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
        self.lost.fetch_sub(1, SeqCst);
        self.writes.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Is its answer heard?
    fn after_write(&self) -> Result<(), Unavailable> {
        if self.happened() && !self.answered.load(SeqCst) {
            return Err(Unavailable("crashed before the answer".into()));
        }
        if self.lost.compare_exchange(0, -1, SeqCst, SeqCst).is_ok() {
            return Err(Unavailable("the answer was lost".into()));
        }
        Ok(())
    }

    async fn turn(&self) {
        let mut waits = self.paced.load(SeqCst);
        poll_fn(|task| {
            if std::mem::take(&mut waits) {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// One backend's trouble.
#[derive(Debug)]
pub struct Faults {
    /// Shared by all.
    pub crash: Arc<Crash>,
    down: AtomicBool,
    until_down: AtomicI64,
    writes: AtomicUsize,
}

impl Faults {
    fn of(crash: &Arc<Crash>) -> Self {
        Self {
            crash: crash.clone(),
            down: AtomicBool::new(false),
            until_down: AtomicI64::new(i64::MAX),
            writes: AtomicUsize::new(0),
        }
    }

    /// The backend goes away or comes back.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, SeqCst);
        self.until_down.store(i64::MAX, SeqCst);
    }

    /// The backend answers `n` operations more and then goes away.
    pub fn down_after(&self, n: usize) {
        self.until_down.store(i64::try_from(n).unwrap(), SeqCst);
    }

    /// Is it away?
    pub fn is_down(&self) -> bool {
        self.down.load(SeqCst)
    }

    /// How many writes it took so far.
    pub fn writes(&self) -> usize {
        self.writes.load(SeqCst)
    }

    fn up(&self) -> Result<(), Unavailable> {
        if self.is_down() { Err(Unavailable("connection refused".into())) } else { Ok(()) }
    }

    async fn read(&self) -> Result<(), Unavailable> {
        self.crash.turn().await;
        if self.until_down.fetch_sub(1, SeqCst) <= 0 {
            self.down.store(true, SeqCst);
        }
        self.up()
    }

    async fn write<T, E: From<Unavailable>>(&self, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.read().await?;
        self.crash.before_write()?;
        let done = write()?;
        self.writes.fetch_add(1, SeqCst);
        self.crash.turn().await;
        self.crash.after_write()?;
        Ok(done)
    }
}

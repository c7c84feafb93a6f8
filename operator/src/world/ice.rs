//! A process that stands still, as by SIGSTOP: it runs nothing, its clock goes on, what it sent is on its way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};

/// One process's.
#[derive(Clone, Debug, Default)]
pub struct Ice {
    until: Arc<watch::Sender<Option<Instant>>>,
    /// How many of a thousand chances to freeze itself at a bad moment it takes.
    pub mishaps: Arc<AtomicU16>,
}

impl Ice {
    /// One that freezes itself now and then.
    pub fn with_mishaps(mishaps: u16) -> Self {
        Self { mishaps: Arc::new(AtomicU16::new(mishaps)), ..Self::default() }
    }

    /// Stands still from now on.
    pub fn freeze(&self, time: Duration) {
        self.until.send_replace(Some(Instant::now() + time));
    }

    /// Does it stand still?
    pub fn is_frozen(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// A bad moment: it may stand still here, long enough for its lease to be over.
    pub async fn may_freeze(&self) {
        if fastrand::u16(0..1000) < self.mishaps.load(SeqCst) {
            self.freeze(Duration::from_secs_f64(20.0 + 30.0 * fastrand::f64()));
        }
        yield_now().await;
    }

    /// Runs `process` while it does not stand still.
    pub fn around<F: Future>(&self, process: F) -> Freezable<F> {
        Freezable { ice: self.clone(), process: Box::pin(process), thaw: None }
    }
}

/// A process that can stand still.
pub struct Freezable<F> {
    ice: Ice,
    process: Pin<Box<F>>,
    thaw: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        loop {
            if this.ice.is_frozen() {
                let until = this.ice.until.borrow().unwrap_or_else(Instant::now);
                let thaw = this.thaw.get_or_insert_with(|| Box::pin(sleep_until(until)));
                thaw.as_mut().reset(until);
                if thaw.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            let done = this.process.as_mut().poll(cx);
            if done.is_ready() || !this.ice.is_frozen() {
                return done;
            }
        }
    }
}

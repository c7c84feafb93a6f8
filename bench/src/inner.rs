//! What the subjects call: a service that does nothing, so that a row shows what is around it.

use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use fusebox::{Class, Classify};

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The callee's: moves a breaker.
    #[error("the callee failed")]
    Callee,
    /// The caller's: moves none.
    #[error("the caller was wrong")]
    Caller,
}

impl Classify for Fault {
    fn class(&self) -> Class {
        match self {
            Self::Callee => Class::Failure,
            Self::Caller => Class::Client,
        }
    }
}

/// An answer of the inner service.
pub type Answer = Result<u64, Fault>;

/// Ready at its first poll.
pub fn ready(i: u64) -> Ready<Answer> {
    std::future::ready(Ok(i))
}

/// Pending once, and woken at once.
pub async fn pending_once(i: u64) -> Answer {
    PendingOnce::new().await;
    Ok(i)
}

/// Fails by the callee's fault.
pub fn fails(_: u64) -> Ready<Answer> {
    std::future::ready(Err(Fault::Callee))
}

/// Fails by the caller's.
pub fn wrong(_: u64) -> Ready<Answer> {
    std::future::ready(Err(Fault::Caller))
}

/// Says Pending once.
pub struct PendingOnce {
    polled: bool,
}

impl PendingOnce {
    /// Not yet polled.
    pub const fn new() -> Self {
        Self { polled: false }
    }
}

impl Future for PendingOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.polled {
            return Poll::Ready(());
        }
        self.polled = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

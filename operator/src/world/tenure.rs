//! The right to write, as a test decides it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::leader::Tenure;
use crate::ports::{Answer, Unavailable};

/// Held until it is lost.
#[derive(Debug, Default)]
pub struct TenureWorld {
    lost: AtomicBool,
    unknown: AtomicBool,
}

impl TenureWorld {
    /// Another process leads from now on.
    pub fn lose(&self) {
        self.lost.store(true, SeqCst);
    }

    /// The Lease cannot be read.
    pub fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, SeqCst);
    }
}

impl Tenure for TenureWorld {
    fn holds(&self) -> bool {
        !self.lost.load(SeqCst)
    }

    fn confirm(&self) -> Answer<'_, Result<bool, Unavailable>> {
        Box::pin(async {
            if self.unknown.load(SeqCst) { Err(Unavailable("no answer".into())) } else { Ok(self.holds()) }
        })
    }
}

//! An epoch key.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use fusebox_policy::wire::Epoch;
use tokio::sync::Mutex;

use crate::ports::{Answer, EpochStore, Fence, Unavailable};

/// The key and a counter of changes.
#[derive(Debug, Default)]
pub struct EpochWorld {
    state: Mutex<(u64, Option<(Epoch, u64)>)>,
    lose: AtomicBool,
}

impl EpochWorld {
    /// The same for another process.
    pub fn copy(&self) -> Self {
        Self { state: Mutex::new(self.state.try_lock().unwrap().clone()), lose: AtomicBool::default() }
    }

    /// It is as it was in another, where it stood there.
    pub fn restore(&self, from: &Self) {
        self.state.try_lock().unwrap().1.clone_from(&from.state.try_lock().unwrap().1);
    }

    /// What is there.
    pub fn epoch(&self) -> Option<Epoch> {
        self.state.try_lock().unwrap().1.clone().map(|(epoch, _)| epoch)
    }

    /// Somebody wrote it, or it was lost.
    pub fn set(&self, epoch: Option<Epoch>) {
        let mut state = self.state.try_lock().unwrap();
        state.0 += 1;
        state.1 = epoch.map(|epoch| (epoch, state.0));
    }

    /// Everything is lost, and places are counted anew.
    pub fn wipe(&self) {
        *self.state.try_lock().unwrap() = (0, None);
    }

    /// The next swap takes place and is not answered.
    pub fn lose_next_answer(&self) {
        self.lose.store(true, SeqCst);
    }

    /// Does the key stand there?
    pub fn stands_at(&self, fence: Fence) -> bool {
        self.read().is_some_and(|(_, at)| at == fence)
    }

    /// What is there and where it stands.
    pub fn read(&self) -> Option<(Epoch, Fence)> {
        self.state.try_lock().unwrap().1.clone().map(|(epoch, at)| (epoch, Fence(at)))
    }

    /// Compare and swap.
    pub fn swap(&self, expected: Option<Fence>, epoch: &Epoch) -> bool {
        let fits = self.read().map(|(_, at)| at) == expected;
        if fits {
            self.set(Some(epoch.clone()));
        }
        fits
    }
}

impl EpochStore for EpochWorld {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async { Ok(self.read()) })
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            let done = self.swap(expected, epoch);
            if self.lose.swap(false, SeqCst) { Err(Unavailable("no answer".into())) } else { Ok(done) }
        })
    }
}

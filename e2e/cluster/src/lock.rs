//! One `up` or `down` at a time. The lock is a file lock, so a killed command leaves none behind.

use std::fs::{File, TryLockError};

use anyhow::{Context, Result};

use crate::{Places, Progress};

/// Hold the state folder until the returned file is dropped.
pub(crate) fn hold(places: &Places, progress: Progress) -> Result<File> {
    // In the cache, not in the state folder, which may be deleted whole.
    let name = places.state.to_string_lossy().replace('/', "-");
    let path = places.cache.join(format!("lock{name}"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress.say("waiting for another command that holds this cluster");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cluster"),
    }
    Ok(file)
}

//! When which document was first seen, by the machine's monotonic clock: writer and subject share it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, which is one for all processes.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// In the order they were seen.
#[derive(Debug)]
pub struct Arrivals(Vec<(u32, u64)>);

impl Arrivals {
    /// With room, so that noting one costs no allocation.
    pub fn of(documents: u32) -> Self {
        Self(Vec::with_capacity(documents as usize + 1000))
    }

    /// The document is seen, as of this moment.
    pub fn note(&mut self, number: u32, at: u64) {
        self.0.push((number, at));
    }

    /// A line each: its number and the moment.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.0.iter().fold(String::new(), |mut text, (number, at)| {
            let _ = writeln!(text, "{number} {at}");
            text
        });
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

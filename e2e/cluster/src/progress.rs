//! Progress lines for a person who waits: `[ 12.3s] what is done now`.

use std::io::{Write as _, stderr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A clock since the command's start, and the lines it prints on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    start: Instant,
}

/// A step that took less tells its end by the next line alone.
const WORTH_TELLING: Duration = Duration::from_secs(1);

impl Progress {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// One line with the time since the start.
    pub fn say(&self, text: impl AsRef<str>) {
        // A reader that went away is no reason to stop half-way.
        let _ = writeln!(stderr(), "[{:6.1}s] {}", self.start.elapsed().as_secs_f64(), text.as_ref());
    }

    /// Run a step: a line at its begin, one with its time at its end, its name in its error.
    pub fn step<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.say(name);
        let begin = Instant::now();
        let result = work().with_context(|| name.to_owned());
        let took = begin.elapsed();
        match &result {
            Ok(_) if took < WORTH_TELLING => {}
            Ok(_) => self.say(format!("{name}: {:.1} s", took.as_secs_f64())),
            Err(_) => self.say(format!("{name}: FAILED after {:.1} s", took.as_secs_f64())),
        }
        result
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

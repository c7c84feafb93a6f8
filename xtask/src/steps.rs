//! The list of steps with their times that a long command ends with.

use std::time::{Duration, Instant};

use anyhow::Result;
use fusebox_cluster::Progress;

/// Steps of a command, in order.
pub struct Steps {
    progress: Progress,
    done: Vec<(String, Duration, bool)>,
}

impl Steps {
    pub fn new(progress: Progress) -> Self {
        Self { progress, done: Vec::new() }
    }

    /// Run one, and remember its time and end.
    pub fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        let result = self.progress.step(name, work);
        self.done.push((name.to_owned(), begin.elapsed(), result.is_ok()));
        result
    }

    /// Note a step that was left out, and why.
    pub fn not_run(&mut self, name: &str, why: &str) {
        self.done.push((format!("{name}: not run, {why}"), Duration::ZERO, true));
    }

    /// The list.
    pub fn print(&self) {
        eprintln!();
        for (name, took, ok) in &self.done {
            eprintln!("{:>8.1} s  {}{name}", took.as_secs_f64(), if *ok { "" } else { "FAILED: " });
        }
        eprintln!("{:>8.1} s  in all", self.progress.elapsed().as_secs_f64());
    }
}

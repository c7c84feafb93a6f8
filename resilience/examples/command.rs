//! A circuit breaker, a fallback and retries around a callee that breaks down for a while.
//!
//! Run it: `cargo run -p fusebox --example command`

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fusebox::{Command, Fusebox, PolicyBuilder};

/// A callee whose next requests fail.
#[derive(Default)]
struct Directory {
    failures: AtomicU32,
    requests: AtomicU32,
}

impl Directory {
    fn fail_next(&self, requests: u32) {
        self.failures.store(requests, Ordering::Relaxed);
    }

    async fn find(&self) -> Result<&'static str, io::Error> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let failures = self.failures.load(Ordering::Relaxed);
        self.failures.store(failures.saturating_sub(1), Ordering::Relaxed);
        if failures > 0 { Err(io::Error::other("the directory is down")) } else { Ok("Ada") }
    }

    /// Makes a call with a fallback and says how it went.
    async fn show(&self, find_user: Command) {
        let before = self.requests.load(Ordering::Relaxed);
        let mut reason = None;
        let answer = find_user
            .call_idempotent(|| self.find())
            .or_fallback(|error| {
                reason = Some(error.to_string());
                "default user"
            })
            .await;
        let asked = self.requests.load(Ordering::Relaxed) - before;
        match (answer, reason) {
            (Ok(user), None) => println!("  {user} (requests: {asked})"),
            (Ok(user), Some(reason)) => println!("  {user}, because: {reason} (requests: {asked})"),
            (Err(error), _) => println!("  no answer: {error} (requests: {asked})"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = PolicyBuilder::new()
        .command("find_user", |command| {
            command
                .timeout(Duration::from_millis(250))
                .max_concurrent_requests(100)
                .retry(|retry| retry.max_attempts(2))
                .circuit_breaker(|breaker| {
                    breaker
                        .error_percent_threshold(50)
                        .request_volume_threshold(5)
                        .sleep_window(Duration::from_millis(500))
                })
        })
        .build()?;
    let fusebox = Fusebox::fixed(policy);
    let (directory, find_user) = (Directory::default(), fusebox.command("find_user"));

    println!("The directory works:");
    for _ in 0..3 {
        directory.show(find_user).await;
    }
    println!("One request fails; the second attempt answers:");
    directory.fail_next(1);
    directory.show(find_user).await;
    println!("The directory is down. Once half of at least five requests have failed the breaker opens:");
    directory.fail_next(u32::MAX);
    for _ in 0..4 {
        directory.show(find_user).await;
    }
    println!("The directory works again, but the breaker sleeps for 500 ms:");
    directory.fail_next(0);
    directory.show(find_user).await;
    tokio::time::sleep(Duration::from_millis(550)).await;
    println!("After that a probe goes through, succeeds, and closes the breaker:");
    for _ in 0..2 {
        directory.show(find_user).await;
    }

    println!("What Prometheus sees of it, among others:");
    let metrics = fusebox.registry_text();
    let told =
        ["fusebox_command_calls_total", "fusebox_command_fallbacks_total", "fusebox_breaker_transitions"];
    let told = |line: &&str| told.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
    metrics.lines().filter(told).for_each(|line| println!("  {line}"));
    Ok(())
}

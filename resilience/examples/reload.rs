//! A policy that changes under load: nothing is lost, and a candidate shows what it would do before it does.
//!
//! Run it: `cargo run -p fusebox --example reload`

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fusebox::{Fusebox, InvalidPolicy, Policy, PolicyBuilder};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

/// A limit for the command, and one for its shadow.
fn policy(limit: u64, candidate: Option<u64>) -> Result<Policy, InvalidPolicy> {
    let builder = PolicyBuilder::new().command("report", move |command| {
        command
            .timeout(MS * 500)
            .max_concurrent_requests(limit)
            .circuit_breaker(|breaker| breaker.consecutive_failures(10).sleep_window(Duration::from_secs(30)))
    });
    let builder = candidate.into_iter().fold(builder, |builder, limit| {
        builder
            .shadow(|shadow| shadow.command("report", move |command| command.max_concurrent_requests(limit)))
    });
    builder.build()
}

fn show(fusebox: &Fusebox, names: &[&str]) {
    let metrics = fusebox.registry_text();
    let told = |line: &&str| names.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
    metrics.lines().filter(told).for_each(|line| println!("  {line}"));
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let fusebox = Fusebox::fixed(policy(8, None)?);
    let report = fusebox.command("report");
    let broken = Arc::new(AtomicBool::new(false));
    // Eight callers, so that eight calls of 5 ms are in flight all the time.
    for _ in 0..8 {
        let broken = Arc::clone(&broken);
        tokio::spawn(async move {
            loop {
                let call = report.call(async || {
                    sleep(MS * 5).await;
                    if broken.load(Ordering::Relaxed) { Err(io::Error::other("broken")) } else { Ok(()) }
                });
                if call.await.is_err() {
                    sleep(MS * 5).await;
                }
            }
        });
    }
    let limit = ["fusebox_command_calls_total", "fusebox_command_limit", "fusebox_command_in_flight"];

    println!("Eight callers under a limit of eight:");
    sleep(MS * 300).await;
    show(&fusebox, &limit);

    println!("A shadow of the policy tries a limit of three; it refuses nobody, it only counts:");
    fusebox.apply(&policy(8, Some(3))?);
    sleep(MS * 300).await;
    show(&fusebox, &["fusebox_command_shadow_total", "fusebox_command_calls_total"]);

    println!("The limit is three now. Calls in flight were never ended, all counts went on:");
    fusebox.apply(&policy(3, None)?);
    sleep(MS * 300).await;
    show(&fusebox, &limit);

    println!("The callee breaks, and after ten failures in a row the breaker opens (2) for 30 seconds:");
    broken.store(true, Ordering::Relaxed);
    sleep(MS * 300).await;
    show(&fusebox, &["fusebox_breaker_state", "fusebox_breaker_transitions"]);

    println!("Another change of the limit: the breaker is open still, as a reload keeps every state:");
    fusebox.apply(&policy(100, None)?);
    show(&fusebox, &["fusebox_command_limit", "fusebox_breaker_state", "fusebox_breaker_transitions"]);

    println!("A policy that makes no sense is refused, with everything that is wrong with it:");
    if let Err(invalid) = policy(0, Some(2_000_000)) {
        println!("  {}", invalid.to_string().replace('\n', "\n  "));
    }
    Ok(())
}

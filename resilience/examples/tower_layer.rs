//! A command as a layer around any tower service: timeout and concurrency limit.
//!
//! Run it: `cargo run -p fusebox --example tower_layer`

use std::error::Error;
use std::io;
use std::time::Duration;

use fusebox::{Fusebox, PolicyBuilder};
use futures::future::join_all;
use tower::{Layer, ServiceExt, service_fn};

/// Takes as long as it is told.
async fn nap(millis: u64) -> Result<u64, io::Error> {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(millis)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = PolicyBuilder::new()
        .command("nap", |command| command.timeout(Duration::from_millis(100)).max_concurrent_requests(3))
        .build()?;
    let fusebox = Fusebox::fixed(policy);
    let service = fusebox.command("nap").layer().layer(service_fn(nap));

    println!("A request, and one that takes longer than the 100 ms of the policy:");
    for millis in [20, 200] {
        match service.oneshot(millis).await {
            Ok(took) => println!("  answered after {took} ms"),
            Err(error) => println!("  {error}"),
        }
    }
    println!("Five requests at once, of which the policy admits three:");
    for answer in join_all((0..5).map(|_| service.oneshot(50))).await {
        match answer {
            Ok(took) => println!("  answered after {took} ms"),
            Err(error) => println!("  {error}"),
        }
    }
    Ok(())
}

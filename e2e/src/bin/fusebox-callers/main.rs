//! Calls the user service by name in three ways at once, at a steady rate, and counts what becomes of it: what the
//! tests measure faults with. The ways: [`lanes`].

mod lanes;
mod round_robin;
mod serve;
mod tally;

use fusebox::Fusebox;
use fusebox::discovery::Discovery;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let fusebox = Fusebox::from_env().await?;
    let lanes = lanes::start(&fusebox, &Discovery::from_env());
    fusebox.ready().await;
    lanes.ready().await;
    serve::run(lanes).await
}

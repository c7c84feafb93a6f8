//! The sample service, its user store and its caller. What each does is told by `user-service --help`.

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use user_service::cli::{Cli, Role};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { role, process } = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    match role {
        Role::Serve(args) => user_service::serve::run(args, process).await,
        Role::Caller(args) => user_service::caller::run(args, process).await,
        Role::Store(args) => user_service::store::run(args, process).await,
    }
}

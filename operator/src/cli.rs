//! Which of the program's two jobs is asked for.

use std::ffi::OsString;

use clap::Parser;

use crate::access::{self, AccessConfig};
use crate::app;
use crate::config::Config;

/// `etcd-access` as the first word is the one, everything else the other. Not clap's subcommand: what the operator
/// requires may come from the environment, and would be asked of `etcd-access` too.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    if args.get(1).is_some_and(|word| word == "etcd-access") {
        Box::pin(access::run(AccessConfig::parse_from(&args[1..]))).await
    } else {
        app::run(Config::parse_from(args)).await
    }
}

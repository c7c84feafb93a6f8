//! The command line.

// The doc comments are what `--help` prints.
#![allow(clippy::doc_markdown)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The sample service of Fusebox, in three roles.
///
/// The user service greets by name over gRPC and HTTP on one port; it asks a user store. The caller finds the
/// user service in Consul and greets through it. The policies of all calls come from the ResilientService
/// named by FUSEBOX_SERVICE, out of the etcd named by FUSEBOX_ETCD, and change while the process runs.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER)]
pub struct Cli {
    /// What this process is.
    #[command(subcommand)]
    pub role: Role,
    /// How it starts and ends.
    #[command(flatten)]
    pub process: ProcessArgs,
}

const AFTER: &str = "\
Environment of the policies (serve, caller):
  FUSEBOX_SERVICE   the ResilientService, as <namespace>/<name>
  FUSEBOX_CLUSTER   the cluster's name, as the operator knows it
  FUSEBOX_ETCD      etcd's address, like http://etcd:2379
  POD_NAME, POD_UID, POD_IP   which instance this is
  RUST_LOG          what is logged, like info or user_service=debug";

/// What a process is.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// The user service: gRPC user.v1.UserService/GetUser and HTTP GET /users/{name} on one port
    Serve(ServeArgs),
    /// A service that calls the user service: HTTP GET /hello/{name}
    Caller(CallerArgs),
    /// The user store, which can be made slow and failing: HTTP GET /users/{name}
    Store(StoreArgs),
}

/// How a process starts and ends.
#[derive(Clone, Copy, Debug, Args)]
pub struct ProcessArgs {
    /// How long to wait for the first policy before becoming ready without it, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "POLICY_WAIT", default_value = "10", value_parser = seconds)]
    pub policy_wait: Duration,
    /// How long to go on serving after SIGTERM, not ready any more, so that everyone stops sending, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "DRAIN", default_value = "5", value_parser = seconds)]
    pub drain: Duration,
    /// How long requests in flight may then take to finish, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "GRACE", default_value = "10", value_parser = seconds)]
    pub grace: Duration,
}

/// Arguments of the user service.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The address for gRPC and HTTP
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:50051")]
    pub listen: SocketAddr,
    /// The address for /metrics, /hystrix.stream, /healthz and /readyz
    #[arg(long, env = "ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// The user store
    #[arg(long, value_name = "URL", env = "USER_STORE_URL", default_value = "http://user-store:8080")]
    pub store: String,
    /// The name of this instance, in the header x-instance of every answer
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "local")]
    pub instance: String,
}

/// Arguments of the caller.
#[derive(Clone, Debug, Args)]
pub struct CallerArgs {
    /// The address for HTTP
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The address for /metrics, /hystrix.stream, /healthz and /readyz
    #[arg(long, env = "ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// Consul's address
    #[arg(long, value_name = "ADDRESS", env = "CONSUL_HTTP_ADDR", default_value = "http://127.0.0.1:8500")]
    pub consul: String,
    /// Consul's ACL token
    #[arg(long, env = "CONSUL_HTTP_TOKEN", hide_env_values = true)]
    pub consul_token: Option<String>,
    /// A file with Consul's ACL token, read anew for each question
    #[arg(long, value_name = "FILE", env = "CONSUL_HTTP_TOKEN_FILE")]
    pub consul_token_file: Option<PathBuf>,
    /// A PEM file with the authority that signed Consul's certificate
    #[arg(long, value_name = "FILE", env = "CONSUL_CACERT")]
    pub consul_ca_file: Option<PathBuf>,
    /// The user service's name in Consul
    #[arg(long, value_name = "NAME", env = "USER_SERVICE_NAME", default_value = "user.service")]
    pub service: String,
    /// The name of this instance, in the header x-instance of every answer
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "local")]
    pub instance: String,
}

/// Arguments of the user store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// The address for HTTP
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Offer GET and PUT /admin/behaviour, which make the store slow or failing
    #[arg(long, env = "STORE_ADMIN")]
    pub admin: bool,
    /// The address for /admin/behaviour
    #[arg(long, env = "ADMIN_LISTEN", default_value = "0.0.0.0:9091")]
    pub admin_listen: SocketAddr,
}

/// Whole seconds, at most an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').unwrap_or(text).parse::<u64>() {
        Ok(seconds @ 0..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("write whole seconds from 0 to 3600, like 5 or 5s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_are_whole_and_bounded() {
        assert_eq!(seconds("5"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds("5s"), Ok(Duration::from_secs(5)));
        assert!(seconds("5m").is_err() && seconds("-1").is_err() && seconds("3601").is_err());
    }

    #[test]
    fn the_drain_may_follow_the_role() {
        let cli = Cli::try_parse_from(["user-service", "serve", "--drain", "1"]).unwrap();
        assert_eq!(cli.process.drain, Duration::from_secs(1));
    }
}

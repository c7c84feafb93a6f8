//! Calls through Traefik, as a client outside the cluster makes them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint};

use crate::World;
use crate::user::user_service_client::UserServiceClient;

/// The hosts of `examples/`.
pub const API: &str = "api.example.com";
/// The host of the gRPC route.
pub const GRPC: &str = "grpc.example.com";
/// The host of the caller.
pub const HELLO: &str = "hello.example.com";

/// What `GET /users/{name}` answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Greeting {
    /// `Hello, NAME`.
    pub msg: String,
    /// The pod that answered.
    pub instance: String,
}

/// What the caller's `GET /hello/{name}` answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// The greeting, or the fallback.
    pub msg: String,
    /// Whether it is the fallback.
    pub fallback: bool,
    /// Why the fallback was used.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `GET` of a host and path through the plain entry point.
pub async fn get(world: &World, host: &str, path: &str) -> Result<reqwest::Response> {
    let url = format!("{}{path}", world.address("TRAEFIK_WEB"));
    Ok(world.http.get(url).header("host", host).send().await?)
}

/// Greets through Traefik.
pub async fn greet(world: &World, name: &str) -> Result<Greeting> {
    Ok(get(world, API, &format!("/users/{name}")).await?.error_for_status()?.json().await?)
}

/// Asks the caller through Traefik.
pub async fn hello(world: &World, name: &str) -> Result<Hello> {
    Ok(get(world, HELLO, &format!("/hello/{name}")).await?.error_for_status()?.json().await?)
}

/// The instances that answer `n` greetings.
pub async fn answering(world: &World, n: usize) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for _ in 0..n {
        seen.insert(greet(world, "Ada").await?.instance);
    }
    Ok(seen)
}

/// An HTTPS client that trusts only `ca` and finds `host` at Traefik's TLS entry point; with the URL.
pub fn https(world: &World, host: &str, ca: &str) -> Result<(reqwest::Client, String)> {
    let at: SocketAddr = address(world.address("TRAEFIK_WEBSECURE"))?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
        .resolve(host, at)
        .build()?;
    Ok((client, format!("https://{host}:{}", at.port())))
}

/// A gRPC client through the plain entry point.
pub async fn grpc(world: &World) -> Result<UserServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(world.address("TRAEFIK_WEB").to_owned())?
        .origin(format!("http://{GRPC}").parse()?)
        .timeout(std::time::Duration::from_secs(30));
    Ok(UserServiceClient::new(endpoint.connect().await?))
}

fn address(url: &str) -> Result<SocketAddr> {
    let text = url.split("://").last().unwrap_or(url).trim_end_matches('/');
    text.parse().with_context(|| format!("{url:?} is no address"))
}

//! The server: raw tonic on one core, in a process of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::service::Hello;

/// Serves until it is killed. All of 127.0.0.0/8 reaches it: one server is as many endpoints as are wanted.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        println!("{}", listener.local_addr()?.port());
        let hello = Hello { busy: Duration::ZERO };
        // The server's own setting is not for listeners that it is given: an answer would wait for an acknowledgement.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = Server::builder().add_service(hello).serve_with_incoming(incoming);
        served.await.context("the server ended")?;
        bail!("the server ended")
    })
}

//! The peer for comparison: the endpoints in turn, by plain tonic channels, whatever becomes of the calls.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use fusebox::channel::{Channel as Follower, Discover};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint, Error};

/// One endpoint, for as long as it is listed.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    channel: Channel,
}

/// The endpoints that are listed, each called in its turn.
#[derive(Debug)]
pub struct RoundRobin {
    listed: watch::Sender<Vec<Weak<Peer>>>,
    turn: AtomicUsize,
    /// It is never called: it follows the list, and holds each peer for as long as that is on it.
    follower: Follower,
}

impl RoundRobin {
    /// Over the list of the library's own discovery, with connections set up as its channel sets them up: only the
    /// balancing differs.
    pub fn new(discover: Discover) -> Self {
        let listed = watch::Sender::new(Vec::new());
        let list = listed.clone();
        let follower = discover.channel_over(move |endpoint| {
            let transport = Endpoint::from_shared(format!("http://{}", endpoint.address))
                .unwrap_or_else(|_| Endpoint::from_static("http://invalid.invalid"))
                .connect_timeout(Duration::from_millis(500))
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5));
            let peer = Arc::new(Peer { address: endpoint.address, channel: transport.connect_lazy() });
            list.send_modify(|list| list.push(Arc::downgrade(&peer)));
            Held(peer)
        });
        Self { listed, turn: AtomicUsize::new(0), follower }
    }

    /// Resolves once something was heard of the service.
    pub async fn ready(&self) {
        self.follower.ready().await;
    }

    /// Whose turn it is, and the connection there; None: nobody is listed.
    pub fn next(&self) -> Option<(SocketAddr, Channel)> {
        let listed = self.peers();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(listed.len())?;
        Some((listed[turn].address, listed[turn].channel.clone()))
    }

    /// Who is listed.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.peers().iter().map(|peer| peer.address).collect()
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        let mut peers = Vec::new();
        self.listed.send_modify(|listed| {
            listed.retain(|peer| peer.strong_count() > 0);
            peers = listed.iter().filter_map(Weak::upgrade).collect();
        });
        peers
    }
}

/// The service that the follower asks for.
#[derive(Clone, Debug)]
struct Held(Arc<Peer>);

impl Service<Request<Body>> for Held {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Response<Body>, Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channel = self.0.channel.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        })
    }
}

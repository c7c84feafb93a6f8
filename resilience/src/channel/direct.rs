//! A connection of our own to one endpoint: HTTP/2 over plain TCP, by hyper.
//!
//! Beside a channel of tonic's it spares each call a queue, the task behind it and their boxes. And what it could
//! not send it gives back: it can go to another endpoint though no copy of it was kept.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::Executor;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tonic::ConnectError;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::BoxError;
use super::discover::{ACKNOWLEDGED, CONNECT, KEEP_ALIVE, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_RETRIES};
use super::link::{Broken, Stamp};
use crate::causes;

const OURS: HeaderValue = HeaderValue::from_static(concat!("fusebox/", env!("CARGO_PKG_VERSION")));

type Sender = http2::SendRequest<Body>;

/// One attempt at a connection; all who wait for it share what becomes of it.
type Dial = SetOnce<Result<Sender, String>>;

/// A connection to one endpoint, which is set up by the first call and again by the first one after it broke.
pub(super) struct Direct {
    address: SocketAddr,
    authority: Authority,
    /// Where connections live: they must outlast the calls that set them up.
    runtime: Handle,
    dial: ArcSwapOption<Dial>,
}

impl Direct {
    pub(super) fn new(address: SocketAddr, runtime: Handle) -> Self {
        // Without the zone of a local address, which no authority may have, it is always a valid one.
        let authority = Authority::try_from(SocketAddr::new(address.ip(), address.port()).to_string());
        let authority = authority.unwrap_or_else(|_| Authority::from_static("invalid.invalid"));
        Self { address, authority, runtime, dial: ArcSwapOption::empty() }
    }

    /// Sends what is in `slot`, with `stamp` put on it just before. It is there again if nobody has seen it.
    pub(super) async fn send(
        &self,
        slot: &mut Option<Request<Body>>,
        stamp: Stamp,
    ) -> Result<Response<Incoming>, Broken> {
        let mut again = true;
        loop {
            let sender = match self.open() {
                Some(sender) => sender,
                // Boxed: it happens once, and the room for it would be in every call.
                None => Box::pin(self.dial()).await.map_err(|error| Broken::Unsent(no_connection(error)))?,
            };
            let Some(request) = slot.take() else { return Err(Broken::Sent("nothing to send".into())) };
            let mut error = match self.dispatch(sender, request, stamp).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            *slot = error.take_message();
            let error = error.into_error();
            if slot.is_none() {
                return Err(Broken::Sent(error.into()));
            }
            // The connection has ended while the request was waiting to be written: that says nothing of a new one.
            if !std::mem::replace(&mut again, false) {
                let why = format!("{}: {}", self.address, causes::text(&error));
                return Err(Broken::Unsent(no_connection(why)));
            }
        }
    }

    /// Not async: what waits for the answer has no room for the request.
    fn dispatch(
        &self,
        mut sender: Sender,
        mut request: Request<Body>,
        stamp: Stamp,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.address(&mut request);
        stamp.put(&mut request);
        sender.try_send_request(request)
    }

    /// The connection, if there is one.
    fn open(&self) -> Option<Sender> {
        let dial = self.dial.load();
        dial.as_ref()?.get()?.as_ref().ok().filter(|sender| sender.is_ready()).cloned()
    }

    /// The connection that is being set up, or that is set up now.
    async fn dial(&self) -> Result<Sender, String> {
        let dial = self.dialing();
        // It has its own time limit, which is none where its runtime is not driven.
        match timeout(2 * CONNECT, dial.wait()).await {
            Ok(dialled) => dialled.clone(),
            Err(_) => Err(format!("{}: the runtime of the channel does not run", self.address)),
        }
    }

    fn dialing(&self) -> Arc<Dial> {
        let seen = self.dial.load_full();
        // It may have come just now.
        let is_good = |dial: &Dial| dial.get().is_none_or(|is| is.as_ref().is_ok_and(Sender::is_ready));
        if let Some(dial) = seen.as_ref().filter(|dial| is_good(dial)) {
            return Arc::clone(dial);
        }
        let new = Arc::new(Dial::new());
        let before = self.dial.compare_and_swap(&seen, Some(Arc::clone(&new)));
        match &*before {
            // Somebody else was first.
            Some(other) if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, other)) => Arc::clone(other),
            _ => {
                let (address, authority) = (self.address, self.authority.clone());
                let dialing = Dialing(Arc::clone(&new));
                self.runtime.spawn(async move {
                    // It may be told already only that it was given up, which it was not.
                    let _ = dialing.0.set(connect(address, authority).await);
                });
                new
            }
        }
    }

    /// Addresses a request to this endpoint.
    fn address(&self, request: &mut Request<Body>) {
        let mut uri = take(request.uri_mut()).into_parts();
        (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(self.authority.clone()));
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // With all three parts it is always one.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        let headers = request.headers_mut();
        // Two names of whom is called are one too many.
        headers.remove(HOST);
        headers.entry(USER_AGENT).or_insert(OURS);
    }
}

/// Nobody waits for an attempt whose runtime has ended.
struct Dialing(Arc<Dial>);

impl Drop for Dialing {
    fn drop(&mut self) {
        // Most often it has ended.
        let _ = self.0.set(Err("the runtime of the channel has ended".to_owned()));
    }
}

/// Spawns what hyper has to do for a call: boxed, for its 1.5 KiB in a task, which must be aligned to a cache line, cost
/// the allocator more.
#[derive(Clone)]
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Box::pin(future));
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(ACKNOWLEDGED));
    tcp
}

fn no_connection(why: String) -> BoxError {
    ConnectError(why.into()).into()
}

async fn connect(address: SocketAddr, authority: Authority) -> Result<Sender, String> {
    let connecting = async {
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query("/").build();
        let uri = uri.map_err(|error| error.to_string())?;
        let stream = tcp().oneshot(uri).await.map_err(|error| causes::text(&error))?;
        let mut settings = http2::Builder::new(Spawn);
        settings.timer(TokioTimer::new());
        // How many streams the server takes is in its first words: until then one, and none is refused.
        settings.initial_max_send_streams(1);
        settings.handshake(stream).await.map_err(|error| causes::text(&error))
    };
    let connected = timeout(CONNECT, connecting).await;
    let (sender, connection) = connected
        .unwrap_or_else(|_| Err(format!("no connection within {} ms", CONNECT.as_millis())))
        .map_err(|error| format!("{address}: {error}"))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "a connection broke");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_connection_and_then_one_takes_that() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let direct = Direct::new(listener.local_addr().unwrap(), Handle::current());
        assert!(direct.open().is_none());
        direct.dial().await.unwrap();
        let first = direct.dial.load_full().unwrap();
        direct.dial().await.unwrap();
        assert!(Arc::ptr_eq(&first, &direct.dial.load_full().unwrap()));
    }

    #[test]
    fn who_waits_for_a_runtime_that_does_not_run_is_told() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (idle, other) = (runtime(), runtime());
        let direct = Direct::new(([127, 0, 0, 1], 1).into(), idle.handle().clone());
        let why = other.block_on(direct.dial()).map(drop).unwrap_err();
        assert_eq!(why, "127.0.0.1:1: the runtime of the channel does not run");
        drop(idle);
        let why = other.block_on(direct.dial()).map(drop).unwrap_err();
        assert_eq!(why, "the runtime of the channel has ended");
    }
}

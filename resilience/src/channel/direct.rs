//! A connection of our own to one endpoint: HTTP/2 over plain TCP, by hyper.
//!
//! Beside a channel of tonic's it spares each call a queue, the task behind it and their boxes. And what it could
//! not send it gives back: it can go to another endpoint though no copy of it was kept.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tonic::ConnectError;
use tonic::body::Body;

use super::discover::{CONNECT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use super::link::{Broken, Stamp};

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
        // A socket address is always a valid authority.
        let authority = Authority::try_from(address.to_string());
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
                None => {
                    self.dial().await.map_err(|error| Broken::Unsent(ConnectError(error.into()).into()))?
                }
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
                return Err(Broken::Unsent(error.into()));
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
        dial.wait().await.clone()
    }

    fn dialing(&self) -> Arc<Dial> {
        let seen = self.dial.load_full();
        if let Some(dial) = seen.as_ref().filter(|dial| !dial.initialized()) {
            return Arc::clone(dial);
        }
        let new = Arc::new(Dial::new());
        let before = self.dial.compare_and_swap(&seen, Some(Arc::clone(&new)));
        match &*before {
            // Somebody else was first.
            Some(other) if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, other)) => Arc::clone(other),
            _ => {
                let (address, dialing) = (self.address, Dialing(Arc::clone(&new)));
                self.runtime.spawn(async move {
                    // It may be told already only that it was given up, which it was not.
                    let _ = dialing.0.set(connect(address).await);
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
        request.headers_mut().entry(USER_AGENT).or_insert(OURS);
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

async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut settings = http2::Builder::new(Spawn);
        settings.timer(TokioTimer::new());
        settings.keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        settings.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())
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

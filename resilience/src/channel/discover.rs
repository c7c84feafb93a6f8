//! How a channel is asked for.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::transport::Endpoint as Transport;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use super::balance::Balance;
use super::link::Link;
use super::options::Options;
use super::{BoxError, Channel, Connect, driver};
use crate::discovery::{Discovery, Endpoint};
use crate::fusebox::Shared;

/// How long a connection may take to be set up.
pub(super) const CONNECT: Duration = Duration::from_millis(500);
/// A silent connection is asked whether it lives after so long, and then every few seconds. By TCP: a Go server takes
/// HTTP/2's own pings for an attack unless they are five minutes apart (grpc-go's `EnforcementPolicy`).
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const KEEP_ALIVE_RETRIES: u32 = 2;
/// What was sent must be acknowledged within so long.
pub(super) const ACKNOWLEDGED: Duration = Duration::from_secs(15);

/// A channel to be; made by [`Fusebox::discover`](crate::Fusebox::discover) and
/// [`Fusebox::discover_in`](crate::Fusebox::discover_in).
#[derive(Clone, Debug)]
#[must_use = "it becomes a channel by `channel`"]
pub struct Discover {
    shared: Arc<Shared>,
    discovery: Discovery,
    service: String,
    command: Option<String>,
    options: Options,
}

impl Discover {
    pub(crate) fn new(shared: Arc<Shared>, discovery: Discovery, service: &str) -> Self {
        let service = service.to_owned();
        Self { shared, discovery, service, command: None, options: Options::default() }
    }

    /// The command whose policy holds for each endpoint; else that of the service's own name.
    pub fn command(self, name: &str) -> Self {
        Self { command: Some(name.to_owned()), ..self }
    }

    /// Which requests do no harm if they are sent twice: those are tried again where the command's policy has
    /// a `retry`, at another endpoint if there is one. None, if this is not called. A request that no server
    /// has seen is not asked about.
    ///
    /// ```
    /// # fn f(discover: fusebox::channel::Discover) -> fusebox::channel::Discover {
    /// discover.idempotent(|request| request.uri.path().ends_with("/GetUser"))
    /// # }
    /// ```
    pub fn idempotent(mut self, which: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.options.idempotent = Some(Arc::new(which));
        self
    }

    /// Calls nobody by a list that its source could not confirm for so long. Without this the last list stays
    /// in use, however long the source is away.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options.max_age = Some(age);
        self
    }

    /// Calls the endpoints of this zone alone while `at_least` so many of them, and one, are good.
    pub fn prefer_zone(mut self, zone: impl Into<String>, at_least: usize) -> Self {
        self.options.zone = Some(zone.into());
        self.options.rules.zone_at_least = at_least;
        self
    }

    /// Ejects at most so many of a hundred endpoints, rounded down; 50 if this is not called. Further bad ones
    /// are called as well.
    pub fn max_ejected_percent(mut self, percent: u8) -> Self {
        self.options.rules.max_ejected_percent = percent.min(100);
        self
    }

    /// Ejects nobody while fewer of a hundred endpoints than this are good: they would not bear all the calls,
    /// and it is more likely this process or its network that is bad. 25 if this is not called, 0: never.
    pub fn panic_percent(mut self, percent: u8) -> Self {
        self.options.rules.panic_percent = percent.min(100);
        self
    }

    /// The channel, with connections over plain HTTP/2. Needs a runtime of tokio.
    pub fn channel(self) -> Channel {
        self.start(Connect::Direct(Handle::current()))
    }

    /// The channel, over tonic's connections, set up as `settings` has them, like over TLS.
    pub fn channel_with(self, settings: impl Fn(Transport) -> Transport + Send + Sync + 'static) -> Channel {
        self.channel_over(move |endpoint| {
            // A socket address is always a valid authority.
            let transport = Transport::from_shared(format!("http://{}", endpoint.address))
                .unwrap_or_else(|_| Transport::from_static("http://invalid.invalid"))
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(KEEP_ALIVE))
                .tcp_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
                .tcp_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
            settings(transport).connect_lazy()
        })
    }

    /// The channel, over clients of your own: `connect` makes one for each endpoint that appears, and it is
    /// dropped when the endpoint leaves.
    pub fn channel_over<C, S>(self, connect: C) -> Channel
    where
        C: Fn(&Endpoint) -> S + Send + Sync + 'static,
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let link = move |endpoint: &Endpoint| -> Link {
            Link::Own(BoxCloneSyncService::new(connect(endpoint).map_err(Into::into)))
        };
        self.start(Connect::Own(Box::new(link)))
    }

    fn start(self, connect: Connect) -> Channel {
        let Self { shared, discovery, service, command, options } = self;
        let state = shared.command(command.as_deref().unwrap_or(&service));
        let balance = Balance::new(service, state, options, connect, shared.changed());
        let balance = Arc::new(balance);
        shared.channels.add(&balance);
        let watcher = discovery.watch(&balance.service);
        // What is known already is in force before the first call.
        balance.update(&watcher.known.borrow().clone(), crate::clock::exact());
        let driving = driver::drive(Arc::clone(&balance), watcher, shared.applied.subscribe());
        Channel::new(balance, tokio::spawn(driving))
    }
}

//! The handle that everything hangs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use fusebox_policy::policy::Policy;
use fusebox_policy::wire::{PolicyHash, Rejected};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::circuit::Surroundings;
use crate::clock::{Clock, exact};
use crate::command::Command;
use crate::command::registry::Registry;
use crate::layer::methods::Methods;
use crate::layer::{HttpLayer, Side};
use crate::sync::Writers;

/// The policies of this process and everything that lives under them. Clones are one and the same;
/// layers and commands go on without it.
#[derive(Clone, Debug)]
pub struct Fusebox {
    pub(crate) shared: Arc<Shared>,
    #[cfg(feature = "etcd")]
    pub(crate) feed: Option<Arc<crate::feed::Feed>>,
}

/// What layers, commands and the feed share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: &'static Clock,
    pub(crate) commands: Registry,
    pub(crate) methods: &'static Methods,
    /// Which policy is in force.
    pub(crate) applied: watch::Sender<Applied>,
    /// Woken by what a report tells beside the policy: breakers, outliers, unknown commands.
    #[cfg(any(feature = "channel", feature = "etcd"))]
    pub(crate) changed: Arc<Notify>,
    /// Woken when descriptors are registered.
    #[cfg(feature = "etcd")]
    pub(crate) registered: Notify,
    #[cfg(feature = "channel")]
    pub(crate) channels: crate::channel::Channels,
    /// Consul, as the environment names it, once somebody has asked for it.
    #[cfg(all(feature = "channel", feature = "consul"))]
    consul: std::sync::OnceLock<crate::discovery::Discovery>,
    pub(crate) counts: FeedCounts,
    /// Whether anybody has asked for the server layer.
    pub(crate) attached: AtomicBool,
    /// How many instances share the rates of scope `Service`.
    instances: AtomicU32,
    writers: Writers,
}

/// Which policy is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// None: the compiled-in default.
    pub(crate) hash: Option<PolicyHash>,
    pub(crate) at: Timestamp,
    /// Whether it needs to be known how many instances there are.
    pub(crate) shares_rates: bool,
    /// The newest document, if it was refused.
    pub(crate) rejected: Option<Rejected>,
}

/// What happened to the feed since the process started.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts {
    pub(crate) applied: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) reports: AtomicU64,
    pub(crate) leases: AtomicU64,
}

impl Fusebox {
    /// A policy from code, without any server. [`apply`](Self::apply) changes it.
    pub fn fixed(policy: Policy) -> Self {
        let hash = PolicyHash::of(&policy);
        Self::around(Shared::new(policy, Some(hash)))
    }

    /// The policy that the operator publishes for this service, followed from now on.
    ///
    /// `FUSEBOX_SERVICE` (`<namespace>/<name>` of the `ResilientService`), `FUSEBOX_CLUSTER` and
    /// `FUSEBOX_ETCD` (URLs separated by commas) are required, and `POD_UID` or `POD_IP`; `POD_NAME`,
    /// `FUSEBOX_ETCD_USER` with `FUSEBOX_ETCD_PASSWORD_FILE`, `FUSEBOX_ETCD_CA_FILE`, and
    /// `FUSEBOX_ETCD_CERT_FILE` with `FUSEBOX_ETCD_KEY_FILE` are optional. With `FUSEBOX_LAST_GOOD`, a file on
    /// a volume that outlives the process, every good policy is kept there, and a process that starts while
    /// etcd is away starts under it.
    ///
    /// Its user in etcd needs to read its namespace's `policy/` and `fleet/`, and to read and write its
    /// `reports/`.
    ///
    /// Fails for a missing or malformed variable only. Whatever becomes of etcd, the process runs:
    /// under the policy of `FUSEBOX_LAST_GOOD` or [`Policy::compiled_in`] until a first one has come, under the
    /// last good one after.
    #[cfg(feature = "etcd")]
    pub async fn from_env() -> Result<Self, crate::EnvError> {
        Self::from_variables(|variable| std::env::var(variable).ok()).await
    }

    /// [`from_env`](Self::from_env) with the variables from elsewhere.
    #[cfg(feature = "etcd")]
    #[allow(clippy::unused_async)] // a runtime is needed: background tasks start here
    pub async fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, crate::EnvError> {
        let settings = crate::env::Settings::read(get)?;
        let etcd = settings.etcd.clone();
        Ok(Self::fed(&settings, etcd))
    }

    /// [`from_variables`](Self::from_variables) over another way to etcd than the one in the variables: for
    /// simulations.
    #[cfg(feature = "etcd")]
    #[doc(hidden)]
    pub fn linked(
        get: impl Fn(&str) -> Option<String>,
        etcd: impl crate::etcd::Link,
    ) -> Result<Self, crate::EnvError> {
        Ok(Self::fed(&crate::env::Settings::read(get)?, etcd))
    }

    #[cfg(feature = "etcd")]
    fn fed(settings: &crate::env::Settings, etcd: impl crate::etcd::Link) -> Self {
        let mut fusebox = Self::around(Shared::new(Policy::compiled_in(), None));
        fusebox.feed = Some(Arc::new(crate::feed::Feed::start(settings, etcd, &fusebox.shared)));
        fusebox
    }

    pub(crate) fn around(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            #[cfg(feature = "etcd")]
            feed: None,
        }
    }

    /// Puts another policy in force, keeping every state; see the
    /// [`semantics`](crate::semantics). For policies that come from elsewhere than
    /// etcd; [`Policy::violations`] is the caller's to check.
    pub fn apply(&self, policy: &Policy) {
        self.shared.apply(policy, PolicyHash::of(policy));
    }

    /// Resolves when the first policy is in force: at once for [`fixed`](Self::fixed), else when it
    /// has come from etcd. It may never come: a service that should start nevertheless puts a time
    /// limit around this.
    pub async fn ready(&self) {
        // The sender lives in self.
        let _ = self.shared.applied.subscribe().wait_for(|applied| applied.hash.is_some()).await;
    }

    /// The policy in force; None: the compiled-in default.
    pub fn policy_hash(&self) -> Option<PolicyHash> {
        self.shared.applied.borrow().hash.clone()
    }

    /// Waits until another policy than the one of this hash is in force, and gives its hash. Of policies that
    /// follow each other faster than the caller asks it gives the newest.
    pub async fn policy_other_than(&self, known: Option<&PolicyHash>) -> Option<PolicyHash> {
        let mut applied = self.shared.applied.subscribe();
        // The sender lives in self.
        let other = applied.wait_for(|applied| applied.hash.as_ref() != known).await;
        other.map_or_else(|_| None, |applied| applied.hash.clone())
    }

    /// Puts the requests to this service under policy. The report tells that it was asked for: an
    /// inbound policy that nothing enforces must not look enforced. So ask for it before the service is
    /// ready, and only to use it.
    pub fn server_layer(&self) -> HttpLayer {
        let told = self.shared.attached.swap(true, Ordering::Relaxed);
        #[cfg(feature = "etcd")]
        if !told {
            self.shared.changed.notify_one();
        }
        #[cfg(not(feature = "etcd"))]
        let _ = told;
        HttpLayer::new(Side::Server(self.shared.methods))
    }

    /// Tells what the messages of this service's gRPC methods look like: a `FileDescriptorSet` with
    /// everything it imports, as reflection needs it too. A policy may answer a method with a message of
    /// its own (`fallback.message`), which is checked against this; without it such a policy is refused.
    /// A policy that was refused for that is looked at again.
    #[cfg(feature = "descriptors")]
    pub fn register_descriptors(&self, set: &[u8]) -> Result<(), crate::DescriptorError> {
        self.shared.methods.descriptors.register(set)?;
        let turn = self.shared.writers.turn();
        self.shared.methods.make_ready();
        drop(turn);
        #[cfg(feature = "etcd")]
        self.shared.registered.notify_one();
        Ok(())
    }

    /// The command of that name. A name that the policy does not mention runs under its
    /// `outbound` defaults; that is logged once and reported. After 256 such names all others share
    /// one state, and keep it whatever policy comes.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.shared.command(name))
    }

    /// The service of that name in Consul, which is where `CONSUL_HTTP_ADDR` and the other variables of Consul's own
    /// clients say ([`ConsulConfig::from_env`](crate::discovery::ConsulConfig::from_env)), to be called through a
    /// [`channel`](mod@crate::channel). It is followed once, however many channels there are.
    #[cfg(all(feature = "channel", feature = "consul"))]
    pub fn discover(&self, service: &str) -> crate::channel::Discover {
        let consul = self.shared.consul.get_or_init(crate::discovery::Discovery::from_env);
        self.discover_in(consul, service)
    }

    /// The service of that name as `discovery` knows it, to be called through a [`channel`](mod@crate::channel).
    #[cfg(feature = "channel")]
    pub fn discover_in(
        &self,
        discovery: &crate::discovery::Discovery,
        service: &str,
    ) -> crate::channel::Discover {
        crate::channel::Discover::new(Arc::clone(&self.shared), discovery.clone(), service)
    }

    /// The endpoints that the channels of this process have ejected just now, those that are so for longest
    /// first.
    #[cfg(feature = "channel")]
    pub fn outliers(&self) -> Vec<crate::channel::Outlier> {
        self.shared.channels.outliers()
    }

    /// The metrics as Prometheus (`OpenMetrics`) text, content type
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    pub fn registry_text(&self) -> String {
        crate::metrics::text(&self.shared)
    }

    /// The Hystrix stream, for the Hystrix dashboard and Turbine: `text/event-stream` without an end, by
    /// custom at `/hystrix.stream`. Counts are over ten seconds and latencies over a minute, as in Hystrix.
    ///
    /// ```no_run
    /// # fn f(fusebox: fusebox::Fusebox) -> axum::Router {
    /// axum::Router::new().route("/hystrix.stream", axum::routing::get(async move || fusebox.hystrix_stream()))
    /// # }
    /// ```
    pub fn hystrix_stream(&self) -> http::Response<crate::HystrixStream> {
        crate::hystrix::response(Arc::clone(&self.shared))
    }

    /// Says goodbye: takes back the report, so that nobody counts on this instance any more. Waits
    /// for that at most two seconds. Policies stay in force.
    #[allow(clippy::unused_async)] // without the feature there is nobody to say goodbye to
    pub async fn shutdown(&self) {
        #[cfg(feature = "etcd")]
        if let Some(feed) = &self.feed {
            feed.shutdown().await;
        }
    }
}

impl Shared {
    pub(crate) fn new(policy: Policy, hash: Option<PolicyHash>) -> Self {
        let now = Timestamp::now();
        // What calls look at lives as long as the process: docs/adr/0008.
        let clock: &'static Clock = Box::leak(Box::new(Clock::detect(now)));
        let changed = Arc::new(Notify::new());
        let around = Surroundings { clock, changed: Arc::clone(&changed) };
        let shares_rates = policy.shares_rates();
        let shadow = policy.shadow.unwrap_or_default();
        let methods = Methods::new(&policy.inbound, shadow.inbound.as_ref(), around.clone());
        let commands = Registry::new(policy.outbound, shadow.outbound, hash.is_some(), around);
        Self {
            clock,
            commands,
            methods: Box::leak(Box::new(methods)),
            applied: watch::Sender::new(Applied { hash, at: now, shares_rates, rejected: None }),
            #[cfg(any(feature = "channel", feature = "etcd"))]
            changed,
            #[cfg(feature = "etcd")]
            registered: Notify::new(),
            #[cfg(feature = "channel")]
            channels: crate::channel::Channels::default(),
            #[cfg(all(feature = "channel", feature = "consul"))]
            consul: std::sync::OnceLock::new(),
            counts: FeedCounts::default(),
            attached: AtomicBool::new(false),
            instances: AtomicU32::new(1),
            writers: Writers::default(),
        }
    }

    #[cfg(feature = "channel")]
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The command of that name.
    pub(crate) fn command(&self, name: &str) -> &'static crate::command::state::CommandState {
        self.commands.find(name).unwrap_or_else(|| self.commands.get_or_add(name, &self.writers.turn()))
    }

    /// Puts a policy in force. Of two that race the later call wins, everywhere.
    pub(crate) fn apply(&self, policy: &Policy, hash: PolicyHash) {
        let turn = self.writers.turn();
        let instances = self.instances.load(Ordering::Relaxed);
        let shadow = policy.shadow.clone().unwrap_or_default();
        self.commands.reload(policy.outbound.clone(), shadow.outbound, instances, &turn);
        self.methods.reload(&policy.inbound, shadow.inbound.as_ref(), instances);
        self.counts.applied.fetch_add(1, Ordering::Relaxed);
        let at = self.clock.timestamp(exact().tick());
        let shares_rates = policy.shares_rates();
        self.applied.send_replace(Applied { hash: Some(hash), at, shares_rates, rejected: None });
    }

    /// How many instances share the rates of scope `Service`; zero is taken for one.
    #[cfg(feature = "etcd")]
    pub(crate) fn set_instances(&self, instances: u32) {
        let turn = self.writers.turn();
        let instances = instances.max(1);
        if self.instances.swap(instances, Ordering::Relaxed) != instances {
            self.commands.set_instances(instances, &turn);
            self.methods.set_instances(instances);
        }
    }

    /// Notes that the newest document was refused; None: that it was not.
    #[cfg(feature = "etcd")]
    pub(crate) fn refuse(&self, rejected: Option<Rejected>) {
        self.applied.send_if_modified(|applied| {
            let changed = applied.rejected != rejected;
            applied.rejected = rejected;
            changed
        });
    }
}

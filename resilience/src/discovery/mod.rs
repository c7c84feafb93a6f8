//! Who serves a name: endpoints by name, followed while somebody uses them.
//!
//! A [`Discovery`] is a [`Source`] of endpoints and everyone who follows it: [Consul](Discovery::consul)'s
//! catalog, [DNS](Discovery::dns), a [fixed](Discovery::fixed) list, or [one of yours](Discovery::new).
//!
//! # Guarantees
//! - However many follow a name, the source is asked once; it is asked no more when the last one is gone.
//! - The last list stays in use while the source fails, without end unless the caller sets an age.
//!
//! # Caveats
//! - A list is as good as its source: an instance that died is called until the source knows it. The
//!   [channel](crate::channel) over it ejects it before that.

#[cfg(feature = "consul")]
mod broken;
#[cfg(feature = "consul")]
mod consul;
mod dns;
mod endpoint;
mod fixed;
pub(crate) mod known;
mod source;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[cfg(feature = "consul")]
pub use consul::{ConsulConfig, ConsulConfigError};
pub use endpoint::Endpoint;
pub use source::{Following, Source, Teller};

use crate::sync::Writers;
use known::Known;

/// How often DNS is asked.
const DNS_INTERVAL: Duration = Duration::from_secs(5);

/// A source of endpoints, shared by all who follow it. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Box<dyn Source>,
    watchers: ArcSwap<HashMap<String, Weak<Watcher>>>,
    writers: Writers,
}

/// A name that is followed, for as long as anybody holds this.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) known: watch::Receiver<Known>,
    following: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Discovery {
    /// Of a source of your own.
    pub fn new(source: impl Source) -> Self {
        let shared =
            Shared { source: Box::new(source), watchers: ArcSwap::default(), writers: Writers::default() };
        Self(Arc::new(shared))
    }

    /// The same addresses under every name.
    pub fn fixed(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new(fixed::Fixed(addresses.into_iter().map(Endpoint::new).collect()))
    }

    /// The addresses (A, AAAA) of names like `user-service.shop:50051`, asked of the system's resolver every
    /// 5 s. With a headless Service of Kubernetes these are its ready pods.
    pub fn dns() -> Self {
        Self::dns_every(DNS_INTERVAL)
    }

    /// [`dns`](Self::dns), asked once an `interval`, which is a tenth of a second at least.
    pub fn dns_every(interval: Duration) -> Self {
        Self::new(dns::Dns(interval.max(Duration::from_millis(100))))
    }

    /// The passing instances in Consul's catalog.
    #[cfg(feature = "consul")]
    pub fn consul(config: &ConsulConfig) -> Result<Self, ConsulConfigError> {
        Ok(Self::new(consul::Consul::new(config)?))
    }

    /// [`consul`](Self::consul) by `CONSUL_HTTP_ADDR` and the other variables of Consul's own clients
    /// ([`ConsulConfig::from_env`]). Where they are wrong nobody is found, and every call says why.
    #[cfg(feature = "consul")]
    pub fn from_env() -> Self {
        let consul = ConsulConfig::from_env().and_then(|config| Self::consul(&config));
        consul.unwrap_or_else(|error| Self::new(broken::Broken(error.to_string())))
    }

    /// Follows a name, or joins those who do. Needs a runtime of tokio.
    pub(crate) fn watch(&self, service: &str) -> Arc<Watcher> {
        let shared = &self.0;
        let _turn = shared.writers.turn();
        let watchers = shared.watchers.load();
        if let Some(watcher) = watchers.get(service).and_then(Weak::upgrade) {
            return watcher;
        }
        let (told, known) = Teller::new(service);
        let following = tokio::spawn(shared.source.follow(service, told));
        let watcher = Arc::new(Watcher { known, following });
        let mut more = HashMap::clone(&watchers);
        more.retain(|_, watcher| watcher.strong_count() > 0);
        more.insert(service.to_owned(), Arc::downgrade(&watcher));
        shared.watchers.store(Arc::new(more));
        watcher
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts who follows it.
    #[derive(Debug, Default)]
    struct Counting {
        begun: Arc<AtomicUsize>,
        running: Arc<AtomicUsize>,
    }

    struct Running(Arc<AtomicUsize>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Source for Counting {
        fn follow(&self, _: &str, told: Teller) -> Following {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.running.fetch_add(1, Ordering::SeqCst);
            let running = Running(Arc::clone(&self.running));
            Box::pin(async move {
                told.found(vec![Endpoint::new(([127, 0, 0, 1], 1).into())]);
                std::future::pending::<()>().await;
                drop(running);
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_followed_once_and_while_somebody_uses_it() {
        let source = Counting::default();
        let (begun, running) = (Arc::clone(&source.begun), Arc::clone(&source.running));
        let discovery = Discovery::new(source);
        let counts = || (begun.load(Ordering::SeqCst), running.load(Ordering::SeqCst));
        let (a, b) = (discovery.watch("a"), discovery.clone().watch("a"));
        let other = discovery.watch("b");
        assert_eq!(counts(), (2, 2));
        a.known.clone().wait_for(|known| known.endpoints.len() == 1).await.unwrap();
        drop(a);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(counts(), (2, 2), "another still uses it");
        drop(b);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(counts(), (2, 1));
        drop(discovery.watch("a"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((counts(), discovery.0.watchers.load().len()), ((3, 1), 2));
        drop(other);
    }
}

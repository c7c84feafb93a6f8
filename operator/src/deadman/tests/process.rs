//! A process of the operator, as far as the dead man is concerned, over the world in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::deadman::Keeper;
use crate::deadman::port::{Node, Renewal, Session, Sessions};
use crate::metrics::DeadManMetrics;
use crate::ports::{Answer, Unavailable};
use crate::world::SessionWorld;

/// How a process reaches Consul.
#[derive(Debug, Default)]
pub struct Wire {
    /// Nothing gets through.
    pub cut: AtomicBool,
    /// What gets through, but no answer to it comes back.
    pub deaf: AtomicBool,
    /// The check's registration is refused.
    pub refused: AtomicBool,
    /// How long a request takes, in milliseconds.
    pub slow: AtomicU64,
    pub renewals: AtomicUsize,
}

/// Consul, as one process sees it.
pub struct Seen {
    pub world: Arc<SessionWorld>,
    pub wire: Arc<Wire>,
}

impl Seen {
    async fn ask<T>(&self, ask: impl FnOnce() -> T) -> Result<T, Unavailable> {
        let gone = || Err(Unavailable("no answer".into()));
        if self.wire.cut.load(SeqCst) {
            return gone();
        }
        // Half of it before the request is there, half of it after.
        let half = Duration::from_millis(self.wire.slow.load(SeqCst)) / 2;
        sleep(half).await;
        let answer = ask();
        sleep(half).await;
        if self.wire.cut.load(SeqCst) || self.wire.deaf.load(SeqCst) { gone() } else { Ok(answer) }
    }
}

impl Sessions for Seen {
    fn look(&self) -> Answer<'_, Result<Vec<Node>, Unavailable>> {
        Box::pin(self.ask(|| self.world.nodes()))
    }

    fn create<'a>(
        &'a self,
        node: &'a str,
        name: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Result<Option<String>, Unavailable>> {
        Box::pin(self.ask(move || self.world.create(node, name, ttl)))
    }

    fn renew<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Renewal, Unavailable>> {
        self.wire.renewals.fetch_add(1, SeqCst);
        Box::pin(self.ask(move || self.world.renew(id)))
    }

    fn arm<'a>(&'a self, node: &'a str, session: &'a Session) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            if self.wire.refused.load(SeqCst) {
                return Err(Unavailable("Permission denied".into()));
            }
            self.ask(|| self.world.arm(node, session)).await
        })
    }

    fn disarm<'a>(&'a self, node: &'a str) -> Answer<'a, Result<(), Unavailable>> {
        Box::pin(self.ask(move || self.world.disarm(node)))
    }

    fn supported<'a>(&'a self, _: &'a str) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(self.ask(|| self.world.supported.load(SeqCst)))
    }
}

/// A running process; it is killed with this value.
pub struct Process {
    pub wire: Arc<Wire>,
    pub leads: watch::Sender<bool>,
    pub metrics: DeadManMetrics,
    running: JoinHandle<()>,
}

impl Process {
    pub fn start(world: &Arc<SessionWorld>, leads: bool, ttl: Duration) -> Self {
        let wire = Arc::new(Wire::default());
        let (leads, told) = watch::channel(leads);
        let metrics = DeadManMetrics::default();
        let seen = Arc::new(Seen { world: world.clone(), wire: wire.clone() });
        let running = tokio::spawn(Keeper::new(seen, metrics.clone(), ttl).run(told));
        Self { wire, leads, metrics, running }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.abort();
    }
}

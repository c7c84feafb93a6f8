//! Keeps every node's dead man: looks, renews, rotates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::decide::{self, Role, Step, Why};
use super::port::{Node, Renewal, Session, Sessions};
use crate::metrics::DeadManMetrics;
use crate::ports::Unavailable;

/// How long it is believed what a server was found to support: it may be replaced by another version.
const BELIEVED: Duration = Duration::from_hours(1);

/// One process's part in keeping the dead men of a cluster.
pub struct Keeper {
    sessions: Arc<dyn Sessions>,
    metrics: DeadManMetrics,
    /// None: there are to be no dead men.
    ttl: Option<Duration>,
    nodes: BTreeMap<String, Kept>,
    /// Whether Consul supports this, and when that was found.
    support: Option<(bool, Instant)>,
    /// When the nodes were last known.
    looked: Instant,
    late: watch::Sender<bool>,
    trouble: Option<String>,
}

/// What is remembered of a node.
struct Kept {
    /// When its session was last known to live.
    renewed: Instant,
    /// A session that was created here, and that the check was not seen under yet.
    pending: Option<Session>,
}

impl Keeper {
    /// A TTL of zero: there are to be no dead men, and those there are go.
    pub fn new(sessions: Arc<dyn Sessions>, metrics: DeadManMetrics, ttl: Duration) -> Self {
        Self {
            sessions,
            metrics,
            ttl: Some(ttl).filter(|ttl| !ttl.is_zero()),
            nodes: BTreeMap::new(),
            support: None,
            looked: Instant::now(),
            late: watch::Sender::new(false),
            trouble: None,
        }
    }

    /// Is there a session that this process did not renew for a quarter of its TTL?
    pub fn late(&self) -> watch::Receiver<bool> {
        self.late.subscribe()
    }

    /// For as long as the process lives; its end changes nothing in Consul. While `leads` is true this process
    /// creates and rotates; it renews in any case.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>) {
        let beat = self.ttl.map_or(BELIEVED, decide::beat);
        loop {
            let leading = *leads.borrow_and_update();
            self.round(leading).await;
            tokio::select! {
                () = sleep(beat) => {}
                // Nobody is left to change it: what it says stays.
                () = async { if leads.changed().await.is_err() { std::future::pending().await } } => {}
            }
        }
    }

    /// One look, and all that follows from it.
    pub async fn round(&mut self, leads: bool) {
        let start = Instant::now();
        let done = match self.sessions.look().await {
            Ok(nodes) => {
                self.looked = start;
                self.keep(leads, nodes).await
            }
            Err(error) => {
                // What comes back may be another version.
                self.support = None;
                Err(error)
            }
        };
        self.tell(done.err());
    }

    async fn keep(&mut self, leads: bool, nodes: Vec<Node>) -> Result<(), Unavailable> {
        self.remember(leads, &nodes);
        let role = self.role(leads);
        let mut problem = None;
        let mut rotate = Vec::new();
        for (node, outcome) in join_all(nodes.iter().map(|node| self.renew(role, node))).await {
            match outcome {
                Ok(Outcome { step, renewed }) => {
                    if let Some(kept) = self.nodes.get_mut(&node.name)
                        && let Some(renewed) = renewed
                    {
                        kept.renewed = renewed;
                    }
                    match step {
                        Step::Rotate(why) => rotate.push((node, why)),
                        Step::Disarm => {
                            tracing::info!(node = node.name, "its dead man is taken away");
                            problem = self.sessions.disarm(&node.name).await.err().or(problem);
                        }
                        Step::Rest | Step::Renew(_) => {}
                    }
                }
                Err(error) => problem = Some(error),
            }
        }
        if let Some(ttl) = role.ttl
            && !rotate.is_empty()
            && self.supported().await?
        {
            for (node, why) in rotate {
                problem = self.rotate(&node.name, ttl, why).await.err().or(problem);
            }
        }
        problem.map_or(Ok(()), Err)
    }

    fn role(&self, leads: bool) -> Role {
        let believed = self.support.filter(|(_, found)| Instant::now().duration_since(*found) < BELIEVED);
        Role { leads, ttl: self.ttl.filter(|_| believed.is_none_or(|(supported, _)| supported)) }
    }

    /// Follows which nodes there are, and what was seen of the sessions created here.
    fn remember(&mut self, leads: bool, nodes: &[Node]) {
        self.nodes.retain(|name, _| nodes.iter().any(|node| node.name == *name));
        let armed = nodes.iter().filter_map(|node| node.check.as_ref());
        self.metrics.armed.set(count(armed.filter(|check| check.passing && check.session.is_some()).count()));
        self.metrics.nodes.set(count(nodes.len()));
        for node in nodes {
            let new = Kept { renewed: self.looked, pending: None };
            let kept = self.nodes.entry(node.name.clone()).or_insert(new);
            let seen = node.check.as_ref().and_then(|check| check.session.as_ref());
            if seen.is_some() && kept.pending.as_ref() == seen {
                kept.pending = None;
            }
            // Without a session there is nothing to renew, and it is the leader's to make one.
            if seen.is_none() && !leads {
                kept.renewed = self.looked;
            }
        }
    }

    async fn renew<'a>(&self, role: Role, node: &'a Node) -> (&'a Node, Result<Outcome, Unavailable>) {
        let session = match decide::first(role, node.check.as_ref()) {
            Step::Renew(session) => session,
            step => return (node, Ok(Outcome { step, renewed: None })),
        };
        let asked = Instant::now();
        let outcome = self.sessions.renew(&session.id).await.map(|renewal| Outcome {
            step: decide::next(role, renewal),
            renewed: matches!(renewal, Renewal::Kept(_)).then_some(asked),
        });
        (node, outcome)
    }

    /// Whether Consul supports this, found out if it is not known.
    async fn supported(&mut self) -> Result<bool, Unavailable> {
        let now = Instant::now();
        if let Some((supported, found)) = self.support
            && now.duration_since(found) < BELIEVED
        {
            return Ok(supported);
        }
        let supported = self.sessions.supported(&nonce()).await?;
        if supported {
            tracing::debug!("this Consul supports checks of type session");
        } else {
            tracing::warn!(
                "this Consul does not turn a check critical with its session (1.21 does): there is no dead man, so \
                 entries stay as they are if every operator of this cluster is gone"
            );
        }
        self.support = Some((supported, now));
        Ok(supported)
    }

    /// Creates a session, or takes the one that could not be put to use before; then puts the check under it. The
    /// older session ends by itself: nothing depends on it any more.
    async fn rotate(&mut self, node: &str, ttl: Duration, why: Why) -> Result<(), Unavailable> {
        let Some(kept) = self.nodes.get_mut(node) else { return Ok(()) };
        let mut alive = Instant::now();
        if let Some(session) = &kept.pending
            && self.sessions.renew(&session.id).await? != Renewal::Kept(ttl)
        {
            kept.pending = None;
        }
        let session = if let Some(session) = kept.pending.clone() {
            session
        } else {
            let name = format!("{node}-{}", nonce());
            alive = Instant::now();
            let Some(id) = self.sessions.create(node, &name, ttl).await? else { return Ok(()) };
            kept.pending.insert(Session { name, id }).clone()
        };
        if !decide::fresh(ttl, Instant::now().duration_since(alive)) {
            return Err(Unavailable("a session was too old when it could be used; trying again".to_owned()));
        }
        if !self.sessions.arm(node, &session).await? {
            return Ok(());
        }
        kept.pending = None;
        kept.renewed = alive;
        self.metrics.rotations.inc();
        match why {
            Why::New => tracing::info!(node, session = session.name, "a dead man watches over it"),
            why => {
                tracing::warn!(node, ?why, session = session.name, "its dead man waits for another session");
            }
        }
        Ok(())
    }

    /// Tells people, once for each change.
    fn tell(&mut self, trouble: Option<Unavailable>) {
        let now = Instant::now();
        let trouble = trouble.map(|error| error.0);
        if let Some(error) = &trouble
            && self.trouble.as_ref() != Some(error)
        {
            tracing::warn!(error, "a dead man in Consul could not be looked after; trying again");
        }
        self.trouble = trouble;
        let since = |renewed: Instant| now.duration_since(renewed);
        let all = self.nodes.values().map(|kept| since(kept.renewed)).chain([since(self.looked)]);
        // Where there are to be no dead men none is late.
        let longest = all.max().filter(|_| self.role(false).ttl.is_some()).unwrap_or_default();
        let late = self.ttl.is_some_and(|ttl| decide::late(ttl, longest));
        let changed = self.late.send_if_modified(|told| std::mem::replace(told, late) != late);
        if changed && late {
            tracing::warn!(
                since = ?longest,
                "a dead man was not renewed in Consul for a quarter of its TTL: after one to two TTLs Consul takes \
                 the entries of its node for failing"
            );
        } else if changed {
            tracing::info!("every dead man is renewed again");
        }
        self.metrics.unrenewed.set(i64::try_from(longest.as_secs()).unwrap_or(i64::MAX));
        self.metrics.late.set(late.into());
    }
}

/// What a renewal led to.
struct Outcome {
    step: Step,
    /// When its session was known to live.
    renewed: Option<Instant>,
}

fn count(all: usize) -> i64 {
    i64::try_from(all).unwrap_or(i64::MAX)
}

fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

//! Consul's sessions and the node checks that depend on them, in the time of the test's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::deadman::port::{Check, Node, Renewal, Session};

/// A living session.
#[derive(Clone, Debug)]
pub struct Living {
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    ttl: Duration,
    ends: Instant,
}

/// A check that turned critical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Of this node.
    pub node: String,
    /// Then.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Option<Check>>,
    sessions: BTreeMap<String, Living>,
    names: BTreeSet<String>,
    turned: Vec<Turned>,
    writes: usize,
}

/// What a server does with sessions.
#[derive(Debug)]
pub struct SessionWorld {
    state: Mutex<State>,
    /// Does a check follow its session?
    pub supported: AtomicBool,
}

impl SessionWorld {
    /// Without a node.
    pub fn new(supported: bool) -> Self {
        Self { state: Mutex::default(), supported: AtomicBool::new(supported) }
    }

    /// Everything that is due has happened.
    fn now<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.try_lock().unwrap();
        let now = Instant::now();
        let mut due: Vec<_> = state.sessions.iter().filter(|(_, session)| session.ends <= now).collect();
        due.sort_by_key(|(_, session)| session.ends);
        let due: Vec<(String, Instant)> = due.into_iter().map(|(id, s)| (id.clone(), s.ends)).collect();
        for (id, ends) in due {
            self.end(&mut state, &id, ends);
        }
        look(&mut state)
    }

    fn end(&self, state: &mut State, id: &str, at: Instant) {
        let Some(session) = state.sessions.remove(id) else { return };
        let check = state.nodes.get_mut(&session.node).and_then(Option::as_mut);
        if let Some(check) = check.filter(|_| self.supported.load(SeqCst))
            && check.session.as_ref().is_some_and(|named| named.name == session.name)
            && std::mem::replace(&mut check.passing, false)
        {
            state.turned.push(Turned { node: session.node, at });
        }
    }

    /// A node comes.
    pub fn add_node(&self, node: &str) {
        self.now(|state| state.nodes.entry(node.to_owned()).or_default().is_some());
    }

    /// A node goes, and all that is on it.
    pub fn reap_node(&self, node: &str) {
        self.now(|state| {
            state.nodes.remove(node);
            state.sessions.retain(|_, session| session.node != node);
        });
    }

    /// Everything goes but the nodes' names: a new server, to which somebody registered again.
    pub fn wipe(&self) {
        self.now(|state| {
            state.sessions.clear();
            state.nodes.values_mut().for_each(|check| *check = None);
        });
    }

    /// Every session has its whole time anew, as after a change of Consul's leader.
    pub fn restart_timers(&self) {
        self.now(|state| {
            for session in state.sessions.values_mut() {
                session.ends = ends(session.ttl);
            }
        });
    }

    /// Somebody's transaction wrote the check: it depends on nothing any more.
    pub fn break_check(&self, node: &str) {
        self.now(|state| {
            if let Some(Some(check)) = state.nodes.get_mut(node) {
                check.session = None;
            }
        });
    }

    /// Somebody registered the check without a status: the session lives, and no renewal heals it.
    pub fn spoil(&self, node: &str) {
        self.now(|state| {
            if let Some(Some(check)) = state.nodes.get_mut(node) {
                check.passing = false;
            }
        });
    }

    /// Somebody ended the session that a node's check depends on.
    pub fn destroy_session_of(&self, node: &str) {
        self.now(|state| {
            let named = state.nodes.get(node).and_then(|check| check.as_ref()?.session.clone());
            if let Some(session) = named {
                self.end(state, &session.id, Instant::now());
            }
        });
    }

    /// Somebody ended a session.
    pub fn destroy(&self, id: &str) {
        self.now(|state| self.end(state, id, Instant::now()));
    }

    /// All nodes and their checks.
    pub fn nodes(&self) -> Vec<Node> {
        self.now(|state| {
            state
                .nodes
                .iter()
                .map(|(name, check)| Node { name: name.clone(), check: check.clone() })
                .collect()
        })
    }

    /// The living sessions, by id.
    pub fn sessions(&self) -> BTreeMap<String, Living> {
        self.now(|state| state.sessions.clone())
    }

    /// Every check that turned critical so far.
    pub fn turned(&self) -> Vec<Turned> {
        self.now(|state| state.turned.clone())
    }

    /// How many writes there were so far; a renewal is none.
    pub fn writes(&self) -> usize {
        self.now(|state| state.writes)
    }

    /// As the port.
    pub fn create(&self, node: &str, name: &str, ttl: Duration) -> Option<String> {
        self.now(|state| {
            if !state.nodes.contains_key(node) {
                return None;
            }
            assert!(state.names.insert(name.to_owned()), "the name {name} was used before");
            state.writes += 1;
            let id = format!("session-{}", state.names.len());
            let session = Living { name: name.to_owned(), node: node.to_owned(), ttl, ends: ends(ttl) };
            state.sessions.insert(id.clone(), session);
            Some(id)
        })
    }

    /// As the port.
    pub fn renew(&self, id: &str) -> Renewal {
        self.now(|state| match state.sessions.get_mut(id) {
            None => Renewal::Lost,
            Some(session) => {
                session.ends = ends(session.ttl);
                Renewal::Kept(session.ttl)
            }
        })
    }

    /// As the port.
    pub fn arm(&self, node: &str, session: &Session) -> bool {
        self.now(|state| {
            let Some(check) = state.nodes.get_mut(node) else { return false };
            state.writes += 1;
            *check = Some(Check { passing: true, session: Some(session.clone()) });
            true
        })
    }

    /// As the port.
    pub fn disarm(&self, node: &str) {
        self.now(|state| {
            state.writes += 1;
            if let Some(check) = state.nodes.get_mut(node) {
                *check = None;
            }
        });
    }
}

/// Consul promises a TTL, and doubles it: anything between must do.
fn ends(ttl: Duration) -> Instant {
    Instant::now() + ttl + ttl.mul_f64(fastrand::f64())
}

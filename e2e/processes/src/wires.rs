//! What goes from an operator to its servers: counted, and the place where it is killed.

use std::collections::BTreeSet;
use std::future::pending;

use tokio::sync::watch;

use crate::process::signal;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// The API server.
    Kubernetes,
    /// Consul.
    Consul,
    /// etcd.
    Etcd,
}

/// On which side of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// It never reaches the server.
    Before,
    /// The server has answered, and the operator never hears it.
    After,
}

/// Where to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aim {
    /// At a write to this one,
    pub server: Server,
    /// the n-th since the aim was taken, from zero,
    pub nth: usize,
    /// on this side.
    pub side: Side,
}

/// A write that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where it went.
    pub server: Server,
    /// What it is, for a person.
    pub what: String,
}

#[derive(Debug, Default)]
struct State {
    writes: Vec<Write>,
    requests: Vec<(Server, String, String)>,
    aim: Option<Aim>,
    pid: Option<u32>,
    shot: Option<Write>,
    held: bool,
    refusing: BTreeSet<Server>,
}

/// The wires of one operator. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Wires {
    state: watch::Sender<State>,
}

impl Wires {
    /// Counts from zero, and kills at this write.
    pub fn aim(&self, at: Option<Aim>) {
        self.state.send_modify(|state| {
            let refusing = std::mem::take(&mut state.refusing);
            *state = State { aim: at, pid: state.pid, held: state.held, refusing, ..State::default() };
        });
    }

    /// This is the process to kill from now on; what it sends goes through. Whoever is not killed yet will not be.
    pub fn carry(&self, pid: u32) {
        self.state.send_modify(|state| {
            state.pid = Some(pid);
            state.held = false;
        });
    }

    /// From now on a server is away, for whoever balances it: 502 at once; what streams goes on. Or no more.
    pub fn refuse(&self, server: Server, refuse: bool) {
        self.state.send_modify(|state| {
            if refuse {
                state.refusing.insert(server);
            } else {
                state.refusing.remove(&server);
            }
        });
    }

    /// Is it away?
    pub(crate) fn refuses(&self, server: Server) -> bool {
        self.state.borrow().refusing.contains(&server)
    }

    /// The writes since the last aim, those that were killed included.
    pub fn writes(&self) -> Vec<Write> {
        self.state.borrow().writes.clone()
    }

    /// All requests since the last aim: server, method, path with its query.
    pub fn requests(&self) -> Vec<(Server, String, String)> {
        self.state.borrow().requests.clone()
    }

    /// The write that the operator was killed at, if it was.
    pub fn shot(&self) -> Option<Write> {
        self.state.borrow().shot.clone()
    }

    /// Notes a request.
    pub(crate) fn request(&self, server: Server, method: &str, path: &str) {
        let noted = (server, method.to_owned(), path.to_owned());
        self.state.send_modify(|state| state.requests.push(noted));
    }

    /// Counts a write; on which side of it the operator is to be killed.
    pub(crate) fn count(&self, server: Server, what: String) -> Option<Side> {
        let mut side = None;
        self.state.send_modify(|state| {
            let nth = state.writes.iter().filter(|write| write.server == server).count();
            state.writes.push(Write { server, what });
            side = state.aim.filter(|aim| (aim.server, aim.nth) == (server, nth)).map(|aim| aim.side);
        });
        side
    }

    /// Kills the operator at this write, and answers nothing any more until the next one is carried. Never returns.
    pub(crate) async fn shoot(&self, at: Write) {
        self.state.send_modify(|state| {
            state.aim = None;
            state.held = true;
            state.shot = Some(at);
            signal("-KILL", state.pid.expect("whom to kill"));
        });
        pending::<()>().await;
    }

    /// Returns unless the operator was killed: then what it sent goes nowhere.
    pub(crate) async fn pass(&self) {
        if self.state.borrow().held {
            pending::<()>().await;
        }
    }
}

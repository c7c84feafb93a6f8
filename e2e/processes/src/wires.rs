//! What goes from an operator to its servers: counted, and the place where it is killed or frozen.

use std::collections::BTreeSet;
use std::future::pending;

use tokio::sync::watch;

use crate::process::signal;
use crate::writes;

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

impl Write {
    /// Does its server refuse it by itself once another process is the writer?
    pub fn is_fenced(&self) -> bool {
        writes::is_fenced(self.server, &self.what)
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server carried it out.
    Done,
    /// It was refused, since the epoch is another's.
    Fenced,
    /// It was refused for something else.
    Refused,
}

/// A write that was sent by the time its process was frozen, or after that, and went on to its server after the thaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// What it was.
    pub write: Write,
    /// What became of it, once it is answered.
    pub outcome: Option<Outcome>,
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
    /// The fenced write to freeze at, counted from zero.
    freeze: Option<(Server, usize)>,
    frozen: Option<Write>,
    thawed: bool,
    late: Vec<Late>,
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

    /// Counts from zero, and freezes the process at the n-th fenced write to this server: that one, and whatever else it
    /// sent, stays on the wire until the [thaw](Self::thaw).
    pub fn freeze_at(&self, server: Server, nth: usize) {
        self.aim(None);
        self.state.send_modify(|state| state.freeze = Some((server, nth)));
    }

    /// The write that the operator was frozen at, if it was.
    pub fn frozen(&self) -> Option<Write> {
        self.state.borrow().frozen.clone()
    }

    /// What was held goes on to the servers. The process is not awake by that.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.thawed = true);
    }

    /// The writes that reached a server after the thaw.
    pub fn late(&self) -> Vec<Late> {
        self.state.borrow().late.clone()
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

    /// Counts a write; on which side of it the operator is to be killed. If it is to be frozen there, it is.
    pub(crate) fn count(&self, write: &Write) -> Option<Side> {
        let server = write.server;
        let mut side = None;
        self.state.send_modify(|state| {
            let nth = state.writes.iter().filter(|write| write.server == server).count();
            side = state.aim.filter(|aim| (aim.server, aim.nth) == (server, nth)).map(|aim| aim.side);
            let fenced = state.writes.iter().filter(|write| write.server == server && write.is_fenced());
            if state.freeze == Some((server, fenced.count())) && write.is_fenced() {
                state.freeze = None;
                state.frozen = Some(write.clone());
                signal("-STOP", state.pid.expect("whom to freeze"));
            }
            state.writes.push(write.clone());
        });
        side
    }

    /// Notes a write that goes on to its server, if it is late; its place.
    pub(crate) fn deliver(&self, write: &Write) -> Option<usize> {
        let mut place = None;
        self.state.send_modify(|state| {
            if state.thawed {
                place = Some(state.late.len());
                state.late.push(Late { write: write.clone(), outcome: None });
            }
        });
        place
    }

    /// What became of a late one.
    pub(crate) fn answered(&self, place: usize, outcome: Outcome) {
        self.state.send_modify(|state| state.late[place].outcome = Some(outcome));
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

    /// Returns unless the operator was killed: then what it sent goes nowhere. Of one that was frozen, after the thaw.
    pub(crate) async fn pass(&self) {
        if self.state.borrow().held {
            pending::<()>().await;
        }
        let passes = |state: &State| state.frozen.is_none() || state.thawed;
        // The sender is here.
        let _ = self.state.subscribe().wait_for(passes).await;
    }
}

//! What the dead man needs of Consul.

use std::time::Duration;

use crate::ports::{Answer, Unavailable};

/// The id of the node check that is the dead man.
pub const CHECK: &str = "fusebox-dead-man";

/// A session of Consul's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The name that the check depends on: never used twice.
    pub name: String,
    /// The id that it is renewed by.
    pub id: String,
}

/// The dead man's check of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Not critical?
    pub passing: bool,
    /// The session it depends on: None if it is not of type session, or does not say which.
    pub session: Option<Session>,
}

/// A catalog node of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its dead man, if it has one.
    pub check: Option<Check>,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The session lives on; its TTL.
    Kept(Duration),
    /// There is no such session.
    Lost,
}

/// Sessions, and the node checks that depend on them. None of it is fenced by the epoch: any process may renew, and
/// what a deposed one registers late depends on a session of its own.
pub trait Sessions: Send + Sync {
    /// Every catalog node of this cluster that carries entries, read consistently.
    fn look(&self) -> Answer<'_, Result<Vec<Node>, Unavailable>>;

    /// Creates a session on a node; its id. None: there is no such node any more.
    fn create<'a>(
        &'a self,
        node: &'a str,
        name: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Result<Option<String>, Unavailable>>;

    /// Gives a session its whole TTL anew. The catalog does not change by it.
    fn renew<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Renewal, Unavailable>>;

    /// Puts the node's check under this session, as passing: name and id in one write. False: there is no such node
    /// any more. Without an answer it may have happened or not.
    fn arm<'a>(&'a self, node: &'a str, session: &'a Session) -> Answer<'a, Result<bool, Unavailable>>;

    /// Takes the check away.
    fn disarm<'a>(&'a self, node: &'a str) -> Answer<'a, Result<(), Unavailable>>;

    /// Does a check of this server turn critical with its session? Tried on a node of its own, which no entry is on.
    fn supported<'a>(&'a self, nonce: &'a str) -> Answer<'a, Result<bool, Unavailable>>;
}

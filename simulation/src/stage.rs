//! What a schedule is played on: in memory, or on real processes.

use fusebox_policy::keys::{Ident, Keys};
use tokio::sync::watch;

use crate::operator::{Cluster, Operator, Told};
use crate::schedule::Data;
use crate::wire::Line;

/// A place with an etcd, instances, and wires to it.
pub trait Stage {
    /// A wire to etcd. Clones are one and the same.
    type Wire: Clone;
    /// A process of an instance.
    type Process: Process;

    /// The keys of this place.
    fn keys(&self) -> Keys;

    /// A wire of its own.
    fn wire(&mut self) -> Self::Wire;
    /// Changes how a wire is.
    fn set(&self, wire: &Self::Wire, line: Line);
    /// Every connection over it breaks, new ones are made.
    fn blip(&self, wire: &Self::Wire);

    /// Starts an instance of a resource, in the pod of this UID.
    fn start(&mut self, of: &Ident, uid: &str, wire: &Self::Wire) -> Result<Self::Process, String>;
    /// Starts an operator.
    fn operator(
        &mut self,
        of: &Ident,
        wire: &Self::Wire,
        cluster: watch::Receiver<Cluster>,
        told: watch::Sender<Told>,
    ) -> Operator;

    /// Somebody writes a key, or deletes it.
    fn write(&self, key: &str, value: Option<String>);
    /// Somebody ends the lease of a key.
    fn end_lease(&self, key: &str);
    /// etcd forgets its history.
    fn compact(&self);
    /// etcd ends, and its data becomes this.
    fn stop_etcd(&self, data: Data);
    /// etcd runs.
    fn run_etcd(&self);
    /// etcd makes a backup.
    fn back_up(&self);
    /// How many writes there were, and the newest; None where others write too.
    fn writes(&self) -> Option<(u64, Vec<String>)>;
}

/// An instance's process.
pub trait Process {
    /// Is a policy of the operator's in force?
    fn has_policy(&self) -> bool;
    /// The policies that were in force since this was last asked, the one that is among them. Err: what it does
    /// and what it says differ.
    fn ran(&mut self) -> Result<Vec<u64>, String>;
    /// Stops and continues it.
    fn freeze(&mut self, frozen: bool);
    /// Kills it.
    fn kill(self);
    /// Asks it to end.
    fn end(self);
}

//! The dead man: if every operator of a cluster is gone, its entries in Consul stop being passing, with nobody alive
//! to write that.
//!
//! Each catalog node of ours has a node check of type session: Consul's servers turn it critical when the session
//! that it names ends, and with it every entry on the node. A session ends between one and two of its TTLs after the
//! last renewal.
//!
//! # Guarantees
//! - A check depends on one session, whose name is never used twice: the end of an older one touches nothing.
//! - The check itself says which session it depends on, by name and id, in one write: every process renews exactly
//!   what the check waits for, whoever wrote it.
//! - At rest nothing is written: a renewal changes neither the catalog nor the list of sessions.
//! - The end of a process leaves sessions and checks as they are.
//!
//! # Assumptions
//! - No request reaches Consul later than half a TTL after it was sent.
//!
//! # Caveats
//! - Between the creation of a node and the next look, at most 30 s, the node has no dead man yet.
//! - A session that a rotation left ends by itself, within two of its TTLs.

mod decide;
mod keep;
pub mod port;
#[cfg(test)]
pub mod tests;

pub use keep::Keeper;

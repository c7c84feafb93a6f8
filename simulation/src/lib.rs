//! Is Enforced true? Random schedules of faults against the real code: in memory and in virtual time by the
//! thousand ([`play`]), on real processes and a real etcd by the hundred (tests/real.rs).
//!
//! What is real in memory: the library's feed, report and call path, the operator's reports and verdicts. What
//! is not: etcd, the wires to it, the kubelet, and the operator's loop around its verdicts.

#![allow(clippy::disallowed_types, reason = "locks of a world in memory, never across an await")]

pub mod etcd;
pub mod memory;
pub mod operator;
pub mod oracle;
pub mod play;
pub mod policies;
pub mod processes;
pub mod proxy;
pub mod schedule;
pub mod stage;
pub mod wire;

//! etcd as this library and the operator use it: how to connect, and a watch that survives.

mod connect;

pub use connect::{EtcdConfig, EtcdError, connect};

//! The sample of Fusebox: a user service, the store it asks, and a caller that finds it by name.
//!
//! Everything about policy comes from the crate `fusebox`; what is here is what any service would
//! have anyway: handlers, a client of its store, discovery, readiness and an orderly end.

pub mod caller;
pub mod cli;
mod http_client;
pub mod lifecycle;
mod listen;
mod name;
mod refusal;
pub mod serve;
pub mod store;

pub use name::{InvalidName, UserName};

/// Generated from `proto/user/v1/user.proto`.
#[allow(missing_docs, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("user.v1");

    /// What reflection answers from.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/user.v1.bin"));
}

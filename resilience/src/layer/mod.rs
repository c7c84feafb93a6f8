//! Requests over HTTP under policy, served or sent: one tower layer with everything in it.

mod answer;
mod body;
pub(crate) mod descriptors;
pub(crate) mod fallback;
mod future;
pub(crate) mod methods;
mod protocol;
mod service;

pub use body::HttpBody;
pub use future::HttpFuture;
pub use service::{HttpLayer, HttpService};

#[cfg(feature = "go-micro")]
pub(crate) use protocol::Protocol;
pub(crate) use service::Side;

//! Requests over HTTP under policy, served or sent: one tower layer with everything in it.

mod answer;
mod body;
mod future;
pub(crate) mod methods;
mod protocol;
mod service;

pub use body::HttpBody;
pub use future::HttpFuture;
pub use service::{HttpLayer, HttpService};

pub(crate) use service::Side;

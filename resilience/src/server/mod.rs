//! Requests to this service under policy: a tower layer with timeout and concurrency limit per
//! method.

mod answer;
mod body;
mod future;
pub(crate) mod methods;
mod protocol;
mod service;

pub use body::ServerBody;
pub use future::ServerFuture;
pub use service::{ServerLayer, ServerService};

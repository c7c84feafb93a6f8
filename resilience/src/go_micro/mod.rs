//! Serving callers that are go-micro v1's gRPC client, as they are.
//!
//! [`GoMicroLayer`] goes around a whole server, outside of
//! [`Fusebox::server_layer`](crate::Fusebox::server_layer):
//!
//! ```
//! # use axum::Router;
//! # fn serve(users: Router, fusebox: fusebox::Fusebox) -> Router {
//! use fusebox::go_micro::GoMicroLayer;
//!
//! let served = users.layer(fusebox.server_layer());
//! // A layer of an axum router sees a request after its path was read, so the router goes into another one.
//! Router::new().fallback_service(served).layer(GoMicroLayer::new(["user.v1.UserService"]))
//! # }
//! ```
//! and with tonic's own server: `Server::builder().layer(GoMicroLayer::new(..)).layer(fusebox.server_layer())`.
//!
//! Of a request by go-micro, known by its header `x-content-type`, and of no other:
//! - The path `/<name in Consul>.<Type>/<Method>` is that of the service whose name ends in `.<Type>`, so that
//!   the policy of its method holds. As in go-micro's own server the name before the type is not compared.
//! - The header `timeout`, in nanoseconds, is a deadline as `grpc-timeout` is; the earlier one holds.
//! - An error's message is the JSON that go-micro reads, `{"id","code","detail","status"}`: to any other message
//!   its clients say 500, which they send again. `code` is the HTTP status that means the gRPC code, `id` the name
//!   the service was called by, or `fusebox.<reason>` of what a policy answered.
//!
//! # Which codes are sent again
//! go-micro's clients send again, once, what ends with 408 or 500. A policy answers neither: a timeout is 504, a full
//! limit or rate 429, an open breaker 503. 500 stays what the service says itself, by `INTERNAL`, `UNKNOWN` or
//! `DATA_LOSS`.
//!
//! # Caveats
//! - Messages are protobuf: `application/grpc`, `application/grpc+proto`. A client that was told to send
//!   `application/grpc+json` is answered 501, and how to change that.
//! - go-micro's clients read neither metadata nor trailers: `retry-after` does not reach them.

mod error;
mod layer;
mod request;
mod response;

#[cfg(feature = "channel")]
pub(crate) use error::unpack;
pub use layer::{GoMicroLayer, GoMicroService};
pub use response::{GoMicroBody, GoMicroFuture};

//! What the library guarantees beyond the first breaker, each guarantee a test by its name. One binary,
//! so that it is linked once.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[path = "../common/mod.rs"]
mod common;

mod breakers;
mod cancellation;
mod client_http;
mod contract;
mod errors;
mod rates;
mod regressions;
mod retries;
mod server_policy;
mod shadows;
mod streams;

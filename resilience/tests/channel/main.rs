//! Channels over discovered endpoints. One binary, so that it is linked once.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../operator/tests/common/consul.rs"]
mod consul;

mod balancing;
mod catalog;
mod connections;
mod contract;
mod ejecting;
mod fleet;
mod frozen;
#[cfg(feature = "go-micro")]
mod go_micro;
mod lists;
mod retrying;
mod servers;

//! A fleet of go-micro v1.10 and Fusebox side by side, by real programs over a real Consul and a real etcd: its
//! client calls the user service as the operator registers it, and the caller calls its server.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[cfg(test)]
mod called_by_go_micro;
#[cfg(test)]
mod calls_go_micro;
#[cfg(test)]
#[path = "../../../operator/tests/common/consul.rs"]
mod consul;
#[cfg(test)]
#[path = "../../../resilience/tests/common/etcd.rs"]
mod etcd;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod programs;
#[cfg(test)]
#[allow(dead_code)] // other tests use the rest
#[path = "../roles/support.rs"]
mod support;

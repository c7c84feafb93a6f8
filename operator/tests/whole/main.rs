//! The whole program between real servers, killed and frozen at exact writes, with exact rights, beside another of its kind,
//! and on its way back from each fault.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod freezes;
mod kills;
mod neighbours;
mod picture;
mod recovery;
mod rights;
mod undisturbed;
mod workload;

use tokio::sync::Mutex;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_fusebox-operator");

/// Each test has a Kubernetes of its own, which is heavy: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

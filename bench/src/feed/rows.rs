//! The subjects there are, as rows without figures.

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::version;

/// Who follows the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// A bare watch of etcd-client: the event is received and its bytes are in hand
    EtcdWatch,
    /// A process under policy: a call runs under the new document
    Fusebox,
}

/// Whether anything else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Calls without pause on the other core
    UnderLoad,
    /// Nothing but the watch
    Idle,
}

#[derive(Debug, Serialize)]
struct Line {
    bench: &'static str,
    case: &'static str,
    subject: &'static str,
    version: &'static str,
    threads: u32,
    window: &'static str,
    unit: &'static str,
}

const ROWS: [(&str, &str, &str); 3] = [
    ("under-load", "etcd-watch", "etcd-client"),
    ("under-load", "fusebox", "fusebox"),
    ("idle", "etcd-watch", "etcd-client"),
];

/// Prints every row without measuring.
pub fn list() -> Result<()> {
    for (case, subject, package) in ROWS {
        let version = version::of(package).unwrap_or_default();
        let line = Line { bench: "B5", case, subject, version, threads: 1, window: "", unit: "us" };
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

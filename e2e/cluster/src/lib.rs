//! A real kind cluster for tests and demos, and the images that run in it.
//!
//! Where a Docker daemon answers and the stock node image can be had, kind uses them. Where not (an air-gapped
//! machine, CI), the node image is built from Debian packages and Go modules, and a Docker daemon of the cluster's
//! own runs it. After bring-up the road is one: a kubeconfig, `kind load image-archive`, ports on 127.0.0.1.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cluster = fusebox_cluster::Cluster::open()?;
//! cluster.up(&fusebox_cluster::Options::default())?;
//! println!("{}", cluster.kubectl(&["get", "nodes"])?);
//! # Ok(())
//! # }
//! ```
// The time of steps that a person waits for: synchronous code with nothing to pause.
#![allow(clippy::disallowed_types)]

mod cluster;
pub mod disk;
mod env;
pub mod etcd;
pub mod images;
pub mod install;
mod kind;
mod lock;
mod packages;
mod places;
pub mod ports;
pub mod process;
mod progress;
mod road;
mod snapshot;
mod status;
pub mod tools;

pub use cluster::{Cluster, Options};
pub use env::ETCD_PASSWORD_FILE;
pub use images::Image;
pub use places::Places;
pub use progress::Progress;
pub use road::Road;
pub use snapshot::Snapshot;
pub use status::{Node, Status};

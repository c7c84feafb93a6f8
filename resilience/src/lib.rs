//! Policies for the requests a service serves and the calls it makes, changed at runtime without
//! losing state.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), fusebox::CommandError<std::io::Error>> {
//! use fusebox::{Fusebox, Policy};
//!
//! let fusebox = Fusebox::fixed(Policy::compiled_in()); // or Fusebox::from_env().await?
//! let find_user = fusebox.command("find_user");
//! let user = find_user
//!     .call(|| async { Ok::<_, std::io::Error>("Ada") })
//!     .or_fallback(|error| "default user")
//!     .await?;
//! assert_eq!(user, "Ada");
//! # Ok(()) }
//! ```

mod breaker;
pub mod classify;
mod clock;
mod command;
pub mod deadline;
#[cfg(feature = "etcd")]
mod env;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "etcd")]
mod feed;
mod flight;
mod fusebox;
mod limit;
mod metrics;
mod outcome;
#[cfg(feature = "etcd")]
mod report;
mod server;
mod timed;
#[cfg(feature = "tonic")]
mod tonic;

pub use classify::{Class, Classify};
pub use command::{Call, Command, CommandError, OrFallback};
#[cfg(feature = "etcd")]
pub use env::EnvError;
pub use fusebox_policy::Policy;
pub use fusebox_policy::wire::PolicyHash;
pub use server::{ServerBody, ServerFuture, ServerLayer, ServerService};

pub use crate::fusebox::Fusebox;

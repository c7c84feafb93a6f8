//! Policies for the requests a service serves and the calls it makes, changed at runtime without
//! losing state.
//!
//! One [`Fusebox`] per process. [`Fusebox::server_layer`] holds every request to the policy of its
//! method: a deadline, a concurrency limit, a rate, an answer for when they are exceeded.
//! [`Fusebox::command`] holds a kind of outbound call to its own: those, a circuit breaker, retries, a
//! fallback; around a closure ([`Command::call`]), any tower service ([`Command::layer`]) or a client of
//! HTTP and gRPC ([`Command::http_layer`]). The policies are those of a `ResilientService`, which the
//! operator publishes to etcd, in force milliseconds after an edit, or of a [`PolicyBuilder`], without any
//! server. [`semantics`] says what each means.
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
//!
//! # Guarantees
//! - At its deadline the work is dropped, and its permit is free before the caller has the answer.
//!   Dropped by its caller at any point, a call gives back its permit and its probe slot.
//! - Permits are never over-issued, whatever the limit changes to, and none is refused falsely.
//! - An outcome counts only in the state of the breaker it was admitted under: a late one moves
//!   nothing. Half-open admits exactly the declared number of probes.
//! - No outcome is lost in metrics, and none in the window, but for one that another thread counts at
//!   the very instant the window gets another length.
//! - A policy document is put in force whole or refused whole, and every state stays
//!   ([`semantics`]). Whatever happens to etcd, the last good policy stays; before the first there is
//!   [`Policy::compiled_in`].
//! - The first report of a process is in etcd before its first policy is in force. (Where reports
//!   cannot be written the policy waits twice the lease, 20 s: then no older report stands.)
//! - On the path of a call there is no lock, no task and no allocation; a timer is armed only when
//!   the work first has to wait. There is no unsafe code.
//!
//! # Assumptions
//! - A tokio runtime with time enabled, wherever a call has a deadline and is not ready at once.
//! - In tests, tokio's clock is paused before the [`Fusebox`] is made, if it is paused at all:
//!   `#[tokio::test(start_paused = true)]`.
//! - It is made after any `fork`, as it has a thread that tells the time.
//! - Names of commands are a handful of constants, and a process has one [`Fusebox`]: the state of a
//!   name lives as long as the process.
//!
//! # Caveats
//! - Time on the path of a call is that of a ticker, up to a millisecond late: deadlines are not, rates
//!   and windows are.
//! - A deadline is bound to the task: what a handler or call spawns is neither cancelled nor told.
//! - A served request's deadline ends with the head of the response: the body of a stream is not cut.
//!   Its permit is held until the body has ended or is dropped.
//! - A probe without a timeout that never ends keeps its breaker half-open.
//!
//! # Features
//! - `etcd` (default): [`Fusebox::from_env`] and [`mod@etcd`].
//! - `discovery`: names followed to endpoints ([`mod@discovery`]); `consul`: in Consul's catalog.
//! - `channel`: balanced channels over them ([`mod@channel`]), [`Fusebox::discover_in`]; with `consul`,
//!   [`Fusebox::discover`].
//! - `tonic`: `tonic::Status` as an error of commands and as their answer.
//! - `descriptors`: messages that a policy answers gRPC methods with
//!   ([`Fusebox::register_descriptors`]).
//! - `go-micro`: callers that are go-micro's gRPC client (`go_micro`).
//!
//! Metrics need none: [`Fusebox::registry_text`] for Prometheus, [`Fusebox::hystrix_stream`] for the
//! Hystrix dashboard.

mod breaker;
#[cfg(any(feature = "channel", feature = "consul"))]
mod causes;
#[cfg(feature = "channel")]
pub mod channel;
mod circuit;
pub mod classify;
mod clock;
mod command;
pub mod deadline;
#[cfg(feature = "discovery")]
pub mod discovery;
#[cfg(feature = "etcd")]
mod env;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "etcd")]
mod feed;
mod flight;
mod fuse;
mod fusebox;
#[cfg(feature = "go-micro")]
pub mod go_micro;
mod hystrix;
mod latency;
mod layer;
mod limit;
mod metrics;
mod outcome;
mod rate;
#[cfg(feature = "etcd")]
mod report;
mod shadow;
mod shard;
mod slot;
mod sync;
mod timed;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(doc)]
#[doc = include_str!("../../docs/semantics.md")]
pub mod semantics {}

pub use classify::{Class, Classify, ErrorCode};
pub use command::{
    Attempt, Call, Command, CommandError, CommandFuture, CommandLayer, CommandService, IdempotentCall,
    OrFallback, OrFallbackAsync,
};
#[cfg(feature = "etcd")]
pub use env::EnvError;
pub use fusebox_policy::policy::{
    self, BreakerMode, InvalidPolicy, MethodMatch, Policy, PolicyBuilder, RateScope,
};
pub use fusebox_policy::wire::PolicyHash;
pub use hystrix::HystrixStream;
#[cfg(feature = "descriptors")]
pub use layer::descriptors::DescriptorError;
pub use layer::{HttpBody, HttpFuture, HttpLayer, HttpService};

pub use crate::fusebox::Fusebox;

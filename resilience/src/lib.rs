//! Policies for the requests a service serves and the calls it makes, changed at runtime without
//! losing state.
//!
//! One [`Fusebox`] per process. [`Fusebox::server_layer`] holds every request to the policy of its
//! method: a deadline and a concurrency limit. [`Fusebox::command`] holds a kind of outbound call to
//! its own: deadline, limit, circuit breaker, fallback. The policies are those of a
//! `ResilientService`, which the operator publishes to etcd; an edit is in force in milliseconds.
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
//! - The error percentage is `(failures + timeouts) / (successes + failures + timeouts)` over ten
//!   buckets of the rolling window, inclusive, in integers, not judged below the volume. Refused
//!   calls, client errors and cancellations count neither way.
//! - A policy document is put in force whole or refused whole. Whatever happens to etcd, the last
//!   good policy stays; before the first there is [`Policy::compiled_in`].
//! - The first report of a process is in etcd before its first policy is in force. (Where reports
//!   cannot be written the policy waits twice the lease, 20 s: then no older report stands.)
//! - On the path of a call there is no lock, no task and no allocation; a timer is armed only when
//!   the work first has to wait.
//!
//! # What a reload keeps
//! | Field | What a change does |
//! |---|---|
//! | `timeout` | Calls admitted from now on; those in flight keep their deadline. |
//! | `maxConcurrentRequests` | Calls in flight count towards the new limit and are never ended; a limit below their number admits nobody until enough of them have. |
//! | `errorPercentThreshold`, `requestVolumeThreshold` | The window stays; the next outcome is judged by the new numbers. |
//! | `rollingWindow` | The counts stay: each bucket's go to the new bucket that holds its last moment; what is older than the new window is gone. An outcome that another thread counts at that very instant may be missed. |
//! | `sleepWindow` | An open breaker has slept since it opened: a shorter one may be over at once. |
//! | `halfOpenProbes` | Probes in flight and successes stay. If as many have succeeded as are now asked for, the next call closes the breaker. |
//! | `mode` | A forced mode overrides the verdict and freezes the state: back under `Enforce` it goes on from there. `ForcedClosed` and `ForcedOpen` count outcomes into the window, `Disabled` does not. |
//! | `circuitBreaker` removed, set again | As `Disabled` in between. |
//! | `fallback.enabled` | The next fallback. |
//! | A command or method removed, named again | Its breaker, window and calls in flight stay, under the defaults in between. |
//! | The order of methods | Each keeps its state, by its match. |
//!
//! Between two commands a policy is not put in force at the same instant; each of them, and all
//! methods together, change at once.
//!
//! # Assumptions
//! - A tokio runtime with time enabled, wherever a call has a deadline and is not ready at once. Time
//!   is tokio's clock, in whole milliseconds from the start of the process; in tests it can be paused.
//! - Names of commands are a handful of constants.
//!
//! # Caveats
//! - A deadline is bound to the task: what a handler or call spawns is neither cancelled nor told.
//! - A served request's deadline ends with the head of the response: the body of a stream is not cut.
//!   Its permit is held until the body has ended or is dropped.
//! - A call that is cut short by the deadline of its request is a timeout in metrics. For the breaker
//!   it is one only if it had at least half of the command's own timeout, or the command has none: a
//!   client in a hurry cannot open the breaker of all. A call whose request's deadline has already
//!   passed is not made and not counted by the breaker.
//! - A probe without a timeout that never ends keeps its breaker half-open.
//!
//! # Features
//! - `etcd` (default): [`Fusebox::from_env`] and [`mod@etcd`].
//! - `tonic`: `tonic::Status` as an error of commands and as their answer.

mod breaker;
mod circuit;
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
mod fuse;
mod fusebox;
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

pub use classify::{Class, Classify, ErrorCode};
pub use command::{
    Attempt, Call, Command, CommandError, CommandFuture, CommandLayer, CommandService, IdempotentCall,
    OrFallback, OrFallbackAsync,
};
#[cfg(feature = "etcd")]
pub use env::EnvError;
pub use fusebox_policy::Policy;
pub use fusebox_policy::wire::PolicyHash;
pub use layer::{HttpBody, HttpFuture, HttpLayer, HttpService};

pub use crate::fusebox::Fusebox;

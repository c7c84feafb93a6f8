//! Scenarios over in-memory worlds: the whole pipeline but for the adapters.

mod cancelled;
mod crashes;
mod deposed;
mod edits;
mod fields;
mod fleet;
mod handover;
mod outages;
mod races;
mod scenarios;
mod scene;
mod sieve;
mod statuses;
mod steps;
mod transitions;
mod trouble;
mod workloads;

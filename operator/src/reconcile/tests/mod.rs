//! Scenarios over in-memory worlds: the whole pipeline but for the adapters.

mod cancelled;
mod crashes;
mod deletions;
mod deposed;
mod edits;
mod fields;
mod fleet;
mod go_micro;
mod handover;
mod orphans;
mod outages;
mod outliers;
mod races;
mod scenarios;
mod scene;
mod sieve;
mod statuses;
mod steps;
mod transitions;
mod trouble;
mod undecodable;
mod unsaid;
mod workloads;

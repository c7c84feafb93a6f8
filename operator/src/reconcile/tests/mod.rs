//! Scenarios over in-memory worlds: the whole pipeline but for the adapters.

mod crashes;
mod deletions;
mod edits;
mod fleet;
mod orphans;
mod scenarios;
mod scene;
mod statuses;
mod trouble;

//! Scenarios over in-memory worlds: the whole pipeline but for the adapters.

mod crashes;
mod edits;
mod fleet;
mod handover;
mod scenarios;
mod scene;
mod statuses;
mod trouble;

//! The table of decisions, the elector over a Lease in memory, and thousands of bad days.

mod days;
mod elector;
mod supervise;
mod table;
mod town;

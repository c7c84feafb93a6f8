//! Whole operators over days in virtual time, by seed: election, epochs, the pipeline, the sweep, the budget and the
//! dead man, on one thread, over the worlds in memory and wires that lose, delay and cut.
//!
//! A day is a few minutes of random trouble and a quiet time after it. A judge looks at every write at the moment at
//! which a server takes it ([`judge`]); after the quiet time everything is as an operator makes it that never saw
//! trouble, and nothing is written for ten minutes ([`rest`]).
//!
//! One fault at a time, and how long the way back from it is: [`recovery`].
//!
//! `FUSEBOX_SEED=n cargo test -p fusebox-operator --lib simulation` plays one seed, `FUSEBOX_TRACE=1` tells each write.
//! With `FUSEBOX_LONG=1` seeds are played for `FUSEBOX_SECONDS` (300 without it), from a random one on.

mod damage;
mod days;
mod foreign;
mod judge;
mod people;
mod place;
mod process;
mod queue;
mod recovery;
mod rest;
pub mod seeds;
mod town;
mod trouble;
mod view;
mod wired;

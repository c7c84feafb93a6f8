//! The atomic protocols of the library, in every order that threads can take and with every value that the
//! memory model lets them read, as loom finds them.
//!
//! The code that is checked is the code that runs: the library's own files are compiled into this crate,
//! with loom's atomics (`sync.rs`), a clock that stands still and slots that a model gives to its threads.
//! `arc_swap` is a list of versions and the index of the one in force. Where loom alone would leave orders
//! out, an atomic of `sync.rs` sees to it that it does not. Not here: what is made of the standard library's
//! locks, and the ticker of the clock.
//!
//! `cargo test -p fusebox-model -- --nocapture` says how many orders there were. A bound is how often a
//! thread may be interrupted where it could go on; where a thread ends or waits, others go on without being
//! counted. `FUSEBOX_LONG=1` takes the second number; "all": without a bound.
//!
//! | Protocol | Model | Bound |
//! | --- | --- | --- |
//! | [Concurrency limit](models::in_flight) | `no_more_than_the_limit_are_admitted` | 2, 4 |
//! |  | `under_a_limit_that_shrinks_no_more_than_the_new_one_are_admitted_by_it` | 2, 3 |
//! |  | `nobody_is_refused_where_a_permit_is_free_throughout` | 4, 6 |
//! | [Rate limit](models::rate) | `a_burst_is_taken_by_racing_calls_exactly_once` | 3, 5 |
//! |  | `threads_that_see_time_out_of_order_take_no_more_than_the_slack_adds` | 3, all |
//! |  | `calls_that_race_with_a_reload_take_at_most_another_burst` | 3, 5 |
//! |  | `the_first_rate_counts_every_call_from_the_first_that_finds_it` | all |
//! | [Opening, and generations](models::trip) | `a_generation_opens_exactly_once` | 2, 3 |
//! |  | `whoever_sees_it_open_is_refused_and_whoever_passed_before_is_late` | 4, all |
//! |  | `an_outcome_of_an_older_generation_never_counts_in_a_newer_window` | 2, 3 |
//! | [Half-open](models::probes) | `it_turns_half_open_once_and_no_more_probes_pass_than_the_policy_allows` | 2, 4 |
//! |  | `a_cancelled_probe_leaves_its_slot_free_and_no_more_are_in_flight_than_the_policy_allows` | 2, 3 |
//! |  | `as_many_successes_as_probes_close_it_exactly_once` | 4, all |
//! |  | `one_failed_probe_opens_it_exactly_once` | 4, all |
//! | [Window](models::window) | `a_reader_sees_a_count_only_grow_and_in_the_end_all_of_it` | 2, 3 |
//! |  | `writers_that_share_a_counter_lose_nothing` | 4, 6 |
//! |  | `the_first_outcomes_of_a_slice_replace_an_older_one_and_lose_nothing` | 3, 4 |
//! |  | `a_resize_keeps_all_that_was_counted_before_and_doubles_nothing` | 2, 3 |
//! | [Slots handed over](models::slots) | `a_counter_that_is_handed_over_loses_nothing` | 3, 4 |
//! |  | `a_window_that_is_handed_over_loses_nothing` | 3, 4 |
//! | [Policies replaced](models::fuse) | `permits_are_conserved_through_a_reload` | 2, 3 |
//! |  | `no_more_are_in_flight_than_the_larger_limit_and_later_than_the_new_one` | 2, 3 |
//! |  | `whoever_sees_the_new_word_sees_the_new_terms` | all |
//! |  | `a_probe_gives_its_slot_back_whatever_becomes_of_the_policy` | 3, 4 |
//! |  | `the_next_outcome_after_a_reload_is_judged_by_the_new_policy` | 2, 3 |
//! | [Judging](models::judging) | `two_outcomes_that_complete_the_volume_open_it_with_the_next_at_the_latest` | 2, 3 |
//! |  | `of_two_judges_that_miss_each_other_none_forgets_what_the_other_saw` | 2, 3 |
//! |  | `a_judge_that_finds_no_failure_does_not_put_off_the_judgement_of_one` | 2, 3 |
//!
//! Loom has its limits: a word remembers seven values, stores to one word take effect in the order in which
//! they are run, and `SeqCst` counts in fences only.

// The library's files have unit tests, which are not to be run on loom's atomics.
#![cfg(not(test))]

#[path = "../../src/breaker/mod.rs"]
#[allow(dead_code, unused_imports)] // the library uses more of it
mod breaker;
mod clock;
mod explore;
#[path = "../../src/fuse/mod.rs"]
#[allow(dead_code)]
mod fuse;
#[path = "../../src/limit.rs"]
#[allow(dead_code)]
mod limit;
#[path = "../../src/rate.rs"]
#[allow(dead_code)]
mod rate;
#[path = "../../src/shard.rs"]
#[allow(dead_code)]
mod shard;
mod slot;
mod swap;
mod sync;

// To the files of the library, this crate is the one that swaps policies.
extern crate self as arc_swap;
#[doc(hidden)]
pub use swap::ArcSwap;

#[allow(clippy::missing_panics_doc, clippy::unwrap_used)] // a model fails by a panic, as a test does
pub mod models;

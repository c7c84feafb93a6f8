//! The table of decisions.

use std::time::Duration;

use jiff::Timestamp;

use super::super::decide::{Aim, Decision, Loss, Record, State, View, decide, identity, record};

const ME: &str = "me";

fn held(by: &str) -> Record {
    Record { holder: by.into(), seconds: Some(15), transitions: 3, acquired: None, renewed: None }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Saw `by` hold it at `since`; leads if it sent a renewal.
fn state(by: &str, since: u64, renewed: Option<u64>) -> State {
    State { observed: Some((held(by), at(since))), renewed: renewed.map(at) }
}

fn lead(state: &State, view: View<'_>, now: u64) -> Decision {
    decide(state, view, ME, Aim::Lead, at(now))
}

#[test]
fn who_does_not_lead() {
    let (theirs, mine, free) = (held("other"), held(ME), held(""));
    let new = State::default();
    assert_eq!(lead(&new, View::Unknown, 100), Decision::Wait(None));
    assert_eq!(lead(&new, View::Absent, 0), Decision::Acquire(0));
    let seen = state("other", 100, None);
    assert_eq!(lead(&seen, View::There(&theirs), 100), Decision::Wait(Some(at(115))));
    assert_eq!(lead(&seen, View::There(&theirs), 114), Decision::Wait(Some(at(115))));
    assert_eq!(lead(&seen, View::There(&theirs), 115), Decision::Acquire(4));
    assert_eq!(lead(&seen, View::Unknown, 1000), Decision::Wait(None), "what cannot be read is not taken");
    assert_eq!(lead(&state("", 100, None), View::There(&free), 100), Decision::Acquire(4), "released");
    assert_eq!(lead(&state(ME, 100, None), View::There(&mine), 100), Decision::Renew, "the answer was lost");
}

#[test]
fn what_the_same_pod_held_is_taken_over_at_once() {
    let me = identity("operator-1", Some("uid-1"), "b");
    let wait = Decision::Wait(Some(at(115)));
    for (holder, expected) in [
        (identity("operator-1", Some("uid-1"), "a"), Decision::Acquire(4)),
        (identity("operator-1", Some("uid-2"), "a"), wait.clone()),
        (identity("operator-2", Some("uid-1"), "a"), wait.clone()),
        (identity("operator-1", None, "a"), wait.clone()),
    ] {
        let theirs = held(&holder);
        let seen = state(&holder, 100, None);
        assert_eq!(decide(&seen, View::There(&theirs), &me, Aim::Lead, at(100)), expected, "{holder}");
        assert_eq!(decide(&seen, View::There(&theirs), &me, Aim::Leave, at(100)), Decision::Left, "{holder}");
    }
    let outside = identity("operator-1", None, "b");
    let theirs = held(&identity("operator-1", None, "a"));
    let seen = state(&theirs.holder, 100, None);
    assert_eq!(decide(&seen, View::There(&theirs), &outside, Aim::Lead, at(100)), wait, "no pod is known");
    // However it came about, it is no longer ours.
    let leads = State { renewed: Some(at(100)), ..state(&me, 100, None) };
    let theirs = held(&identity("operator-1", Some("uid-1"), "a"));
    assert!(matches!(
        decide(&leads, View::There(&theirs), &me, Aim::Lead, at(101)),
        Decision::Lost(Loss::Taken(_))
    ));
}

#[test]
fn who_leads() {
    let (theirs, mine, free) = (held("other"), held(ME), held(""));
    let leads = state(ME, 100, Some(100));
    assert_eq!(leads.leads_until(), Some(at(110)));
    assert_eq!(lead(&leads, View::There(&mine), 109), Decision::Renew);
    assert_eq!(lead(&leads, View::Unknown, 109), Decision::Wait(Some(at(110))));
    for view in [View::Unknown, View::Absent, View::There(&mine), View::There(&theirs)] {
        assert_eq!(lead(&leads, view, 110), Decision::Lost(Loss::Expired), "{view:?}");
    }
    assert_eq!(
        lead(&leads, View::There(&theirs), 101),
        Decision::Lost(Loss::Taken("other".into())),
        "although it is not over"
    );
    assert_eq!(lead(&leads, View::Absent, 101), Decision::Acquire(0), "somebody deleted it");
    assert_eq!(lead(&leads, View::There(&free), 101), Decision::Acquire(4), "somebody emptied it");
}

#[test]
fn who_wants_to_leave() {
    let (theirs, mine, free) = (held("other"), held(ME), held(""));
    let leave = |state: &State, view: View<'_>| decide(state, view, ME, Aim::Leave, at(105));
    let leads = state(ME, 100, Some(100));
    assert_eq!(leave(&leads, View::There(&mine)), Decision::Release);
    assert_eq!(leave(&leads, View::Unknown), Decision::Wait(Some(at(110))), "it may still be held");
    assert_eq!(leave(&leads, View::There(&theirs)), Decision::Lost(Loss::Taken("other".into())));
    assert_eq!(leave(&leads, View::There(&free)), Decision::Left, "the answer to the release was lost");
    assert_eq!(leave(&leads, View::Absent), Decision::Left);
    let stands_by = state("other", 0, None);
    for view in [View::Unknown, View::Absent, View::There(&theirs), View::There(&free)] {
        assert_eq!(leave(&stands_by, view), Decision::Left, "{view:?}: nothing is taken any more");
    }
    assert_eq!(leave(&stands_by, View::There(&mine)), Decision::Release, "the answer was lost");
}

#[test]
fn only_our_own_clock_and_a_change_of_the_record_count() {
    // Its times are those of a clock that is a year late, or a year early.
    for renewed in ["2025-11-28T12:00:00Z", "2027-11-28T12:00:00Z"] {
        let theirs = Record { renewed: Some(renewed.parse().unwrap()), ..held("other") };
        let mut state = State::default();
        state.see(View::There(&theirs), at(100));
        assert_eq!(lead(&state, View::There(&theirs), 100), Decision::Wait(Some(at(115))));
        state.see(View::There(&theirs), at(114));
        assert_eq!(lead(&state, View::There(&theirs), 115), Decision::Acquire(4), "not renewed");
        let again = Record { renewed: Some(Timestamp::UNIX_EPOCH), ..theirs };
        state.see(View::There(&again), at(116));
        assert_eq!(lead(&state, View::There(&again), 130), Decision::Wait(Some(at(131))), "renewed");
        state.see(View::Unknown, at(120));
        assert_eq!(lead(&state, View::There(&again), 131), Decision::Acquire(4), "no answer is no change");
    }
}

#[test]
fn the_holder_says_how_long_it_is_good() {
    for (seconds, over) in [(Some(60), 160), (Some(1), 101), (Some(0), 115), (Some(-5), 115), (None, 115)] {
        let theirs = Record { seconds, ..held("other") };
        let mut state = State::default();
        state.see(View::There(&theirs), at(100));
        assert_eq!(lead(&state, View::There(&theirs), 100), Decision::Wait(Some(at(over))), "{seconds:?}");
    }
}

#[test]
fn what_is_written() {
    let wall = "2026-11-28T12:00:00Z".parse().unwrap();
    let there = Record { acquired: Some(Timestamp::UNIX_EPOCH), ..held(ME) };
    let taken = record(&Decision::Acquire(4), View::Absent, ME, wall).unwrap();
    let expected = Record { acquired: Some(wall), renewed: Some(wall), transitions: 4, ..held(ME) };
    assert_eq!(taken, expected);
    let renewed = record(&Decision::Renew, View::There(&there), ME, wall).unwrap();
    assert_eq!(renewed, Record { renewed: Some(wall), ..there.clone() }, "no transition");
    let released = record(&Decision::Release, View::There(&there), ME, wall).unwrap();
    assert_eq!((released.holder.as_str(), released.transitions, released.seconds), ("", 3, Some(1)));
    for nothing in [Decision::Wait(None), Decision::Left, Decision::Lost(Loss::Expired)] {
        assert_eq!(record(&nothing, View::There(&there), ME, wall), None);
    }
}

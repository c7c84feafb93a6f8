//! A candidate in the policy's shadow decides on every call, counts, and never acts.

use std::time::Duration;

use fusebox::{CommandError, Fusebox};
use fusebox_policy::policy::{BreakerMode, CommandPolicy, SlowCall};
use tokio::time::advance;

use crate::common::calls::{
    Answer, CLIENT, DOWN, assert_outcomes, end, fail, free, is_open, limited, ms, pending, rate, rated,
    shadow, shadowed, slow, succeed, under, with,
};
use crate::common::{in_flight, policy, state};

const DECISIONS: [&str; 6] = ["asked", "opened", "open", "rejected", "rate_limited", "timeout"];

/// Those that are named so often, all others never.
fn assert_shadow(fusebox: &Fusebox, expected: &[(&str, u64)]) {
    let of = |decision| expected.iter().find(|(name, _)| *name == decision).map_or(0, |(_, count)| *count);
    let counted = DECISIONS.map(|decision| (decision, shadow(fusebox, decision)));
    assert_eq!(counted, DECISIONS.map(|decision| (decision, of(decision))));
}

/// Only a breaker.
fn only(breaker: CommandPolicy) -> CommandPolicy {
    CommandPolicy { timeout_ms: None, ..breaker }
}

fn timed(millis: u64) -> CommandPolicy {
    CommandPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..free() }
}

#[tokio::test(start_paused = true)]
async fn a_shadows_breaker_opens_refuses_and_closes_and_nobody_is_refused() {
    let (fusebox, c) = under(shadowed(free(), only(with(|_| ()))));
    fail(&c, 4).await;
    assert_shadow(&fusebox, &[("asked", 4), ("opened", 1)]);
    succeed(&c, 3).await;
    assert_shadow(&fusebox, &[("asked", 7), ("opened", 1), ("open", 3)]);
    advance(Duration::from_secs(1)).await;
    succeed(&c, 2).await;
    assert_shadow(&fusebox, &[("asked", 9), ("opened", 1), ("open", 3)]);
    fail(&c, 2).await;
    assert_shadow(&fusebox, &[("asked", 11), ("opened", 1), ("open", 3)]);
    fail(&c, 1).await;
    assert_shadow(&fusebox, &[("asked", 12), ("opened", 2), ("open", 3)]);
    assert_outcomes(&fusebox, &[("success", 5), ("failure", 7)]);
    assert_eq!(state(&fusebox), 0, "the active one has no breaker");
}

/// Had it acted, those calls would not have been made.
#[tokio::test(start_paused = true)]
async fn what_a_shadow_would_have_refused_does_not_feed_its_window() {
    // Refused by its rate: two of these six failures are its.
    let candidate = CommandPolicy { rate_limit: Some(rate(1, 2)), ..only(with(|_| ())) };
    let (fusebox, c) = under(shadowed(free(), candidate));
    fail(&c, 6).await;
    assert_shadow(&fusebox, &[("asked", 6), ("rate_limited", 4)]);
    for second in 1..=2 {
        assert_eq!(shadow(&fusebox, "opened"), 0, "after {second} of its calls more");
        advance(Duration::from_secs(1)).await;
        fail(&c, 1).await;
    }
    assert_shadow(&fusebox, &[("asked", 8), ("rate_limited", 4), ("opened", 1)]);

    // Refused by its breaker: failures while it is open move nothing, not even the end of its sleep.
    fail(&c, 5).await;
    advance(ms(999)).await;
    fail(&c, 5).await;
    assert_eq!((shadow(&fusebox, "open"), shadow(&fusebox, "opened")), (10, 1));
    advance(ms(1)).await;
    succeed(&c, 1).await;
    assert_eq!(shadow(&fusebox, "open"), 10, "its probe");

    // Refused by its limit: of six at once that fail, two are its.
    let candidate =
        CommandPolicy { max_concurrent_requests: Some(2.try_into().unwrap()), ..only(with(|_| ())) };
    let (fusebox, c) = under(shadowed(free(), candidate));
    let mut calls = Vec::new();
    for _ in 0..6 {
        calls.push(pending(&c).await);
    }
    for (tell, call) in calls {
        tell.send(Err(DOWN)).unwrap();
        call.await.unwrap().unwrap_err();
    }
    assert_shadow(&fusebox, &[("asked", 6), ("rejected", 4)]);
    fail(&c, 2).await;
    assert_shadow(&fusebox, &[("asked", 8), ("rejected", 4), ("opened", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shadows_limit_counts_what_it_would_have_let_pass() {
    let (fusebox, c) = under(shadowed(free(), limited(1)));
    let (tell, first) = pending(&c).await;
    let (tell_too, second) = pending(&c).await;
    assert_shadow(&fusebox, &[("asked", 2), ("rejected", 1)]);
    tell.send(Ok(1)).unwrap();
    first.await.unwrap().unwrap();
    succeed(&c, 2).await;
    assert_shadow(&fusebox, &[("asked", 4), ("rejected", 1)]);
    assert_eq!(in_flight(&fusebox), 1, "of the active one");
    tell_too.send(Ok(1)).unwrap();
    second.await.unwrap().unwrap();
    let (_tell, dropped) = pending(&c).await;
    dropped.abort();
    dropped.await.unwrap_err();
    succeed(&c, 1).await;
    assert_shadow(&fusebox, &[("asked", 6), ("rejected", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shadows_rate_is_its_own() {
    let (fusebox, c) = under(shadowed(rated(10, 5), rated(1, 2)));
    succeed(&c, 5).await;
    assert!(matches!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { .. })));
    assert_shadow(&fusebox, &[("asked", 6), ("rate_limited", 4)]);
    advance(Duration::from_secs(1)).await;
    succeed(&c, 2).await;
    assert_shadow(&fusebox, &[("asked", 8), ("rate_limited", 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_shadows_timeout_counts_what_took_longer_and_feeds_its_breaker() {
    let candidate = CommandPolicy { timeout_ms: Some(50.try_into().unwrap()), ..with(|_| ()) };
    let (fusebox, c) = under(shadowed(timed(100), candidate));
    for millis in [10, 49] {
        assert_eq!(slow(&c, millis, Ok(1)).await, Ok(1));
    }
    assert_shadow(&fusebox, &[("asked", 2)]);
    assert_eq!(slow(&c, 50, Ok(1)).await, Ok(1), "the answer is the answer");
    assert_shadow(&fusebox, &[("asked", 3), ("timeout", 1)]);
    assert_eq!(slow(&c, 1000, Ok(1)).await, Err(CommandError::Timeout(ms(100))));
    assert_shadow(&fusebox, &[("asked", 4), ("timeout", 2), ("opened", 1)]);
    assert_outcomes(&fusebox, &[("success", 3), ("timeout", 1)]);
}

/// It would not have been there any more, to be right or wrong.
#[tokio::test(start_paused = true)]
async fn a_late_client_error_is_a_timeout_to_the_shadow_too() {
    let (fusebox, c) = under(shadowed(free(), timed(50)));
    slow(&c, 49, Err(CLIENT)).await.unwrap_err();
    assert_shadow(&fusebox, &[("asked", 1)]);
    slow(&c, 50, Err(CLIENT)).await.unwrap_err();
    assert_shadow(&fusebox, &[("asked", 2), ("timeout", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_judges_slow_calls_and_rows_by_its_own_rules() {
    let slow_call = SlowCall { threshold_ms: 20.try_into().unwrap(), percent: 50.try_into().unwrap() };
    let candidate = with(|b| {
        b.error_percent_threshold = 100.try_into().unwrap();
        b.slow_call = Some(slow_call);
    });
    let (fusebox, c) = under(shadowed(with(|_| ()), candidate));
    succeed(&c, 2).await;
    for _ in 0..2 {
        slow(&c, 20, Ok(1)).await.unwrap();
    }
    assert_eq!((shadow(&fusebox, "opened"), state(&fusebox)), (1, 0));
    let row = with(|b| b.consecutive_failures = Some(2.try_into().unwrap()));
    let (fusebox, c) = under(shadowed(with(|_| ()), row));
    fail(&c, 2).await;
    assert_eq!((shadow(&fusebox, "opened"), state(&fusebox)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_active_policy_refuses_is_asked_of_the_shadow_and_counts_for_nothing_more() {
    let forced = with(|b| b.mode = BreakerMode::ForcedOpen);
    let candidate = CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..with(|_| ()) };
    let (fusebox, c) = under(shadowed(forced, candidate.clone()));
    for _ in 0..20 {
        assert!(is_open(&end(&c, Err(DOWN)).await));
    }
    assert_shadow(&fusebox, &[("asked", 20)]);
    fusebox.apply(&shadowed(with(|_| ()), candidate));
    fail(&c, 3).await;
    assert_shadow(&fusebox, &[("asked", 23)]);
    fail(&c, 1).await;
    assert_shadow(&fusebox, &[("asked", 24), ("opened", 1)]);
    // Its probe's slot is free again when the active breaker refuses the probe.
    fusebox.apply(&shadowed(
        with(|b| b.mode = BreakerMode::ForcedOpen),
        CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..with(|_| ()) },
    ));
    advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert!(is_open(&end(&c, Ok(1)).await));
    }
    assert_shadow(&fusebox, &[("asked", 27), ("opened", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_keeps_its_state_over_reloads_also_while_there_is_none() {
    let candidate = || only(with(|_| ()));
    let (fusebox, c) = under(shadowed(free(), candidate()));
    fail(&c, 3).await;
    fusebox.apply(&shadowed(timed(500), candidate()));
    fail(&c, 1).await;
    assert_shadow(&fusebox, &[("asked", 4), ("opened", 1)]);
    fusebox.apply(&policy(free()));
    assert!(!fusebox.registry_text().contains("command_shadow_total{"), "there is no shadow");
    fail(&c, 20).await;
    fusebox.apply(&shadowed(free(), candidate()));
    succeed(&c, 1).await;
    assert_shadow(&fusebox, &[("asked", 5), ("opened", 1), ("open", 1)]);
    advance(Duration::from_secs(1)).await;
    succeed(&c, 1).await;
    fail(&c, 3).await;
    assert_shadow(&fusebox, &[("asked", 9), ("opened", 1), ("open", 1)]);
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_while_a_shadow_goes_and_comes_leave_nothing_behind() {
    let with_shadow = || shadowed(free(), limited(1));
    for first in [false, true] {
        let (fusebox, c) = under(if first { with_shadow() } else { policy(free()) });
        let (tell, call) = pending(&c).await;
        fusebox.apply(&if first { policy(free()) } else { with_shadow() });
        let (tell_too, second) = pending(&c).await;
        fusebox.apply(&with_shadow());
        let before = shadow(&fusebox, "rejected");
        for (tell, call) in [(tell, call), (tell_too, second)] {
            tell.send(Ok(1)).unwrap();
            call.await.unwrap().unwrap();
        }
        let (_tell, one) = pending(&c).await;
        assert_eq!(shadow(&fusebox, "rejected"), before, "one permit, and it is free");
        let (_tell, two) = pending(&c).await;
        assert_eq!(shadow(&fusebox, "rejected"), before + 1, "and no second");
        for call in [one, two] {
            call.abort();
            call.await.unwrap_err();
        }
        assert_eq!(in_flight(&fusebox), 0);
    }
}

/// The same calls, with and without every kind of candidate: every answer is the same.
#[tokio::test(start_paused = true)]
async fn no_candidate_changes_an_answer() {
    let active = || CommandPolicy {
        max_concurrent_requests: Some(2.try_into().unwrap()),
        rate_limit: Some(rate(20, 10)),
        ..with(|b| b.consecutive_failures = Some(3.try_into().unwrap()))
    };
    let run = async |policy: fusebox::Policy| -> (Vec<Answer>, Vec<u64>) {
        let (fusebox, c) = under(policy);
        let mut answers = Vec::new();
        let mut random = fastrand::Rng::with_seed(7);
        let mut held = Vec::new();
        for _ in 0..2000 {
            let result = if random.u8(..) < 60 { Err(DOWN) } else { Ok(random.u8(..)) };
            match random.u8(0..6) {
                0 if held.len() < 3 => held.push(pending(&c).await),
                1 => answers.push(slow(&c, random.u64(1..130), result).await),
                2 => advance(ms(random.u64(0..300))).await,
                _ => answers.push(end(&c, result).await),
            }
            if random.u8(0..4) == 0
                && let Some((tell, call)) = held.pop()
            {
                let _ = tell.send(result);
                answers.push(call.await.unwrap());
            }
        }
        let text = fusebox.registry_text();
        let counted = crate::common::calls::OUTCOMES.map(|outcome| {
            crate::common::value(
                &text,
                &format!("command_calls_total{{command=\"c\",outcome=\"{outcome}\"}}"),
            )
        });
        (answers, counted.to_vec())
    };
    let alone = run(policy(active())).await;
    let everything = CommandPolicy {
        max_concurrent_requests: Some(1.try_into().unwrap()),
        rate_limit: Some(rate(5, 2)),
        timeout_ms: Some(20.try_into().unwrap()),
        ..with(|b| b.request_volume_threshold = 1.try_into().unwrap())
    };
    let forced = with(|b| b.mode = BreakerMode::ForcedOpen);
    for candidate in [free(), limited(1), rated(1, 1), timed(1), forced, everything, active()] {
        let said = format!("{candidate:?}");
        assert!(run(shadowed(active(), candidate)).await == alone, "{said}");
    }
    let seen = alone.1.iter().filter(|count| **count > 0).count();
    assert_eq!(seen, 6, "all but client errors and cancellations: {:?}", alone.1);
}

//! Endpoints that are bad: how much of them callers see, beside a round robin that ejects nobody.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fusebox_policy::policy::{BreakerMode, BreakerPolicy, CommandPolicy};
use tokio::time::sleep;

use crate::common::{self, breaker, command};
use crate::fleet::{Answer, Does, Fleet, address, bad, call};

/// The same calls over one channel for each endpoint, in turn.
async fn round_robin(fleet: &Fleet, count: usize) -> Vec<Answer> {
    let no_breaker = CommandPolicy { circuit_breaker: None, ..command() };
    let mut each = Vec::new();
    for (n, server) in fleet.servers.iter().enumerate() {
        let mut alone = Fleet::unheard(fleet.servers.len(), no_breaker.clone(), |discover| discover);
        // As this one behaves.
        alone.servers[n] = server.clone();
        let fusebox = alone.fusebox.clone();
        let discovery = fusebox::discovery::Discovery::fixed([address(n)]);
        let server = server.clone();
        let channel = fusebox
            .discover_in(&discovery, "alone")
            .command("c")
            .channel_over(move |_| crate::fleet::Link::of(&server, n));
        each.push(channel);
    }
    let mut answers = Vec::new();
    for n in 0..count {
        answers.push(call(&each[n % each.len()]).await);
        sleep(Duration::from_millis(10)).await;
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn callers_see_little_of_one_bad_endpoint() {
    let kinds = [
        (Does::Fail, Some(13), 5),
        (Does::Hang, Some(4), 5),
        (Does::NotReady, Some(4), 5),
        (Does::Refuse, None, 0),
    ];
    for (does, code, most) in kinds {
        let fleet = Fleet::new(4, command(), |discover| discover).await;
        fleet.servers[1].now(does);
        let (made, failed) = fleet.until_ejected(1).await;
        assert!(failed <= most, "{does:?}: {failed} of {made} calls until it was ejected");
        let out = fleet.fusebox.outliers().remove(0);
        assert_eq!((out.endpoint, &*out.service, &*out.command), (address(1), "user.service", "c"));
        let reasons = ["100 % errors of 4 calls", "5 failures in a row"];
        assert!(reasons.contains(&&*out.reason), "{does:?}: {}", out.reason);
        assert_eq!((fleet.metric("endpoints"), fleet.metric("endpoints_ejected")), (4, 1));
        assert_eq!(fleet.metric("endpoint_ejections_total"), 1);
        let (text, reason) = (fleet.fusebox.registry_text(), out.reason);
        let labels = "service=\"user.service\",command=\"c\",endpoint=\"10.0.0.1:2\"";
        let line = format!("fusebox_endpoint_ejected_timestamp_seconds{{{labels},reason=\"{reason}\"}}");
        assert!(text.contains(&line), "{text}");

        let after = fleet.calls(1000).await;
        let wrong = after.iter().find(|answer| !answer.is_good() && answer.code != code);
        assert_eq!(wrong, None, "{does:?}");
        let (ours, theirs) = (bad(&after), bad(&round_robin(&fleet, 1000).await));
        assert_eq!(theirs, 250, "{does:?}");
        assert!(ours <= most, "{does:?}: {ours} of 1000 calls were probes");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_caller_eject_nobody() {
    let fleet = Fleet::new(2, command(), |discover| discover).await;
    fleet.servers[0].now(Does::NotFound);
    let answers = fleet.calls(200).await;
    assert!(bad(&answers) > 60, "it is called like the other");
    assert_eq!(fleet.fusebox.outliers(), []);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_where_the_policy_names_no_number() {
    // A volume that one of four endpoints would be long in reaching.
    let slow = BreakerPolicy { request_volume_threshold: 1000.try_into().unwrap(), ..breaker() };
    let policy = CommandPolicy { circuit_breaker: Some(slow), ..command() };
    let fleet = Fleet::new(2, policy, |discover| discover).await;
    fleet.servers[0].now(Does::Fail);
    assert_eq!(fleet.until_ejected(1).await.1, 5);
    let out = fleet.fusebox.outliers();
    assert_eq!((out[0].endpoint, out[0].reason.as_str()), (address(0), "5 failures in a row"));
}

#[tokio::test(start_paused = true)]
async fn at_most_half_is_ejected_and_in_a_panic_nobody() {
    let fleet = Fleet::new(4, command(), |discover| discover).await;
    (1..4).for_each(|n| fleet.servers[n].now(Does::Fail));
    fleet.calls(500).await;
    assert_eq!(fleet.metric("endpoints_ejected"), 2, "{:?}", fleet.fusebox.outliers());
    fleet.servers[0].now(Does::Fail);
    fleet.calls(500).await;
    assert_eq!(fleet.metric("endpoints_ejected"), 0);
    let shares = fleet.shares(fleet.calls(200)).await;
    assert!(shares.iter().all(|share| *share > 0), "all are called: {shares:?}");
    assert_eq!(shares.iter().sum::<usize>(), 200);
    fleet.servers.iter().for_each(|server| server.now(Does::Answer));
    fleet.calls(1000).await;
    assert_eq!((bad(&fleet.calls(200).await), fleet.fusebox.outliers().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_never_ejected() {
    let fleet = Fleet::new(1, command(), |discover| discover).await;
    fleet.servers[0].now(Does::Fail);
    assert_eq!(fleet.shares(fleet.calls(100)).await, [100]);
    fleet.servers[0].now(Does::Answer);
    assert_eq!(bad(&fleet.calls(100).await), 0);
}

#[tokio::test(start_paused = true)]
async fn who_may_eject_all_answers_unavailable() {
    let fleet = Fleet::new(2, command(), |d| d.max_ejected_percent(100).panic_percent(0)).await;
    fleet.servers.iter().for_each(|server| server.now(Does::Fail));
    fleet.calls(20).await;
    let said = fleet.call().await;
    assert_eq!((said.code, said.reason.as_deref(), said.took), (Some(14), Some("open"), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn one_that_recovers_is_found_by_a_probe_and_warms_up() {
    let fleet = Fleet::new(3, command(), |discover| discover).await;
    fleet.servers[0].now(Does::Fail);
    fleet.until_ejected(1).await;
    let probes = fleet.shares(fleet.calls(3000)).await[0];
    assert!((3..=8).contains(&probes), "half a minute, at sleeps of 1, 2, 3… 8 s: {probes}");
    fleet.servers[0].now(Does::Answer);
    assert_eq!(bad(&fleet.calls(1000).await), 0);
    assert_eq!(fleet.fusebox.outliers(), []);
    fleet.calls(1000).await;
    let shares = fleet.shares(fleet.calls(900)).await;
    assert!((200..400).contains(&shares[0]), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_ends_is_a_failure_and_one_that_is_dropped_frees_its_slot() {
    let fleet = Fleet::new(3, command(), |discover| discover).await;
    fleet.servers[0].now(Does::Fail);
    fleet.until_ejected(1).await;
    fleet.servers[0].now(Does::Hang);
    sleep(Duration::from_secs(2)).await;
    // Half of its time: it is dropped by its caller.
    let dropped = tokio::time::timeout(Duration::from_millis(50), fleet.call()).await;
    assert!(dropped.is_err(), "the first call is the probe");
    sleep(Duration::from_millis(200)).await;
    fleet.servers[0].now(Does::Answer);
    let shares = fleet.shares(fleet.calls(20)).await;
    assert_eq!(
        (shares[0] > 0, fleet.fusebox.outliers().len()),
        (true, 0),
        "another probe follows soon: {shares:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_in_force_for_each_endpoint_and_keeps_its_state() {
    let fleet = Fleet::new(3, command(), |discover| discover).await;
    fleet.servers[0].now(Does::Fail);
    fleet.until_ejected(1).await;
    let apply = async |breaker: Option<BreakerPolicy>| {
        fleet.fusebox.apply(&common::policy(CommandPolicy { circuit_breaker: breaker, ..command() }));
        sleep(Duration::from_millis(1)).await;
    };
    apply(Some(BreakerPolicy { sleep_window_ms: 60_000.try_into().unwrap(), ..breaker() })).await;
    assert_eq!(fleet.shares(fleet.calls(1000)).await[0], 0, "still ejected, and for longer");
    apply(None).await;
    assert_eq!(fleet.fusebox.outliers(), []);
    sleep(Duration::from_mins(1)).await;
    assert!(fleet.shares(fleet.calls(300)).await[0] > 0, "without a breaker nobody is ejected");
    apply(Some(BreakerPolicy { mode: BreakerMode::ForcedOpen, ..breaker() })).await;
    let said = fleet.call().await;
    assert_eq!((said.code, said.reason.as_deref()), (Some(14), Some("open")), "the whole command is");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_give_everything_back() {
    let limited =
        CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), timeout_ms: None, ..command() };
    let fleet = Fleet::new(2, limited, |discover| discover).await;
    fleet.servers.iter().for_each(|server| server.now(Does::Hang));
    for _ in 0..50 {
        let hung =
            tokio::time::timeout(Duration::from_millis(5), futures::future::join(fleet.call(), fleet.call()))
                .await;
        assert!(hung.is_err());
    }
    assert!(fleet.servers.iter().all(|server| server.in_flight.load(Ordering::SeqCst) == 0));
    assert_eq!(fleet.fusebox.outliers(), [], "a caller that lost interest says nothing");
    fleet.servers.iter().for_each(|server| server.now(Does::Answer));
    assert_eq!(bad(&fleet.calls(4).await), 0);
}

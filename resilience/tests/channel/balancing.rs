//! Whom a channel calls while all is well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fusebox::discovery::Endpoint;
use fusebox_policy::policy::CommandPolicy;
use tokio::time::sleep;

use crate::common::command;
use crate::fleet::{Does, Fleet, bad, endpoint};

#[tokio::test(start_paused = true)]
async fn those_that_are_alike_share_the_calls() {
    let fleet = Fleet::new(4, command(), |discover| discover).await;
    let shares = fleet.shares(fleet.calls(2000)).await;
    assert!(shares.iter().all(|share| (400..600).contains(share)), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_is_called_less() {
    let fleet = Fleet::new(4, command(), |discover| discover).await;
    fleet.servers[2].takes.store(20, Ordering::SeqCst);
    let shares = fleet.shares(fleet.calls(1000)).await;
    assert!(shares[2] * 20 < 1000, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn weights_are_followed() {
    let fleet = Fleet::unheard(2, command(), |discover| discover);
    fleet.source.found(vec![Endpoint { weight: 9, ..endpoint(0) }, endpoint(1)]);
    sleep(Duration::from_secs(11)).await;
    let shares = fleet.shares(fleet.calls(1000)).await;
    assert!((850..950).contains(&shares[0]), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_one_warms_up() {
    let fleet = Fleet::unheard(4, command(), |discover| discover);
    fleet.list([0, 1, 2]).await;
    sleep(Duration::from_secs(11)).await;
    fleet.list([0, 1, 2, 3]).await;
    let first = fleet.shares(fleet.calls(90)).await;
    assert!(first[3] * 10 < 90, "a tenth of its share or so, in the first second: {first:?}");
    fleet.calls(1000).await;
    let warm = fleet.shares(fleet.calls(1000)).await;
    assert!((180..320).contains(&warm[3]), "{warm:?}");
}

#[tokio::test(start_paused = true)]
async fn the_callers_zone_is_preferred_while_enough_of_it_is_good() {
    let fleet = Fleet::unheard(4, command(), |discover| discover.prefer_zone("a", 2));
    let zoned = |zones: [&str; 4]| {
        let one = |(n, zone): (usize, &str)| Endpoint { zone: Some(zone.to_owned()), ..endpoint(n) };
        zones.into_iter().enumerate().map(one).collect()
    };
    fleet.source.found(zoned(["a", "b", "a", "b"]));
    sleep(Duration::from_secs(11)).await;
    let shares = fleet.shares(fleet.calls(100)).await;
    assert_eq!((shares[1], shares[3]), (0, 0), "{shares:?}");
    fleet.servers[0].now(Does::Fail);
    fleet.until_ejected(1).await;
    let shares = fleet.shares(fleet.calls(50)).await;
    assert!(shares[1] > 0 && shares[3] > 0, "one good one is too few: {shares:?}");
    fleet.servers[0].now(Does::Answer);
    fleet.calls(1000).await;
    let shares = fleet.shares(fleet.calls(100)).await;
    assert_eq!((shares[1], shares[3]), (0, 0), "{shares:?}");
    fleet.source.found(zoned(["a", "b", "b", "b"]));
    sleep(Duration::from_millis(1)).await;
    let shares = fleet.shares(fleet.calls(100)).await;
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_has_the_commands_limit_and_a_full_one_is_passed_by() {
    let limited = CommandPolicy {
        max_concurrent_requests: Some(2.try_into().unwrap()),
        timeout_ms: Some(60_000.try_into().unwrap()),
        circuit_breaker: None,
        ..CommandPolicy::default()
    };
    let fleet = Fleet::new(3, limited, |discover| discover).await;
    fleet.servers.iter().for_each(|server| server.takes.store(1000, Ordering::SeqCst));
    let answers = futures::future::join_all((0..9).map(|_| fleet.call())).await;
    assert_eq!(bad(&answers), 3);
    assert!(answers.iter().filter(|answer| !answer.is_good()).all(|answer| {
        (answer.code, answer.reason.as_deref()) == (Some(8), Some("limit")) && answer.took.is_zero()
    }));
    assert_eq!(fleet.servers.iter().map(|server| server.calls()).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(bad(&[fleet.call().await]), 0, "the permits are back");
}

/// Of a thousand endpoints a hundred a second are replaced.
#[tokio::test(start_paused = true)]
async fn a_thousand_endpoints_that_come_and_go_lose_no_call() {
    let fleet = Fleet::unheard(2000, command(), |discover| discover);
    fleet.list(0..1000).await;
    let churn = async {
        for gone in 1..=500 {
            fleet.source.found((gone..gone + 1000).map(endpoint).collect());
            sleep(Duration::from_millis(10)).await;
        }
    };
    let calls = async {
        let mut answers = Vec::new();
        for _ in 0..2500 {
            answers.push(fleet.call().await);
        }
        answers
    };
    let (answers, ()) = tokio::join!(calls, churn);
    assert_eq!(bad(&answers), 0);
    assert!(answers.iter().all(|answer| answer.took <= Duration::from_millis(2)), "none waits for a list");
    assert_eq!(fleet.metric("endpoints"), 1000);
    let connected = fleet.servers.iter().filter(|server| server.links.load(Ordering::SeqCst) > 0).count();
    assert_eq!(connected, 1000, "who left is let go");
}

//! What a channel makes of the lists it is told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fusebox::discovery::Endpoint;
use fusebox_policy::policy::CommandPolicy;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tower::Service as _;

use crate::common::command;
use crate::fleet::{Does, Fleet, address, bad, call, endpoint};

/// Without any time limit of its own.
fn patient() -> CommandPolicy {
    CommandPolicy { timeout_ms: None, ..command() }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nobody_the_answer_comes_at_once_and_says_why() {
    let fleet = Fleet::unheard(1, patient(), |discover| discover);
    let said = fleet.call().await;
    assert_eq!((said.code, said.reason.as_deref()), (Some(14), Some("no_endpoint")));
    assert_eq!(said.message, "nothing was heard of user.service yet");
    assert!(said.took <= Duration::from_millis(1001), "a second at most: {:?}", said.took);

    fleet.source.failed("Consul answered 500");
    sleep(Duration::from_millis(1)).await;
    let said = fleet.call().await;
    assert_eq!(said.message, "no instance of user.service is known: Consul answered 500");
    assert_eq!(said.took, Duration::ZERO);

    fleet.list([]).await;
    let said = fleet.call().await;
    assert_eq!(said.message, "no passing instance of user.service is registered");
    assert_eq!(said.took, Duration::ZERO);

    let plain = Request::get("/users").body(Body::empty()).unwrap();
    let answer = fleet.channel.clone().call(plain).await.unwrap();
    assert_eq!(
        (answer.status(), answer.headers()["fusebox-reason"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "no_endpoint")
    );
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"], "no passing instance of user.service is registered");
}

#[tokio::test(start_paused = true)]
async fn a_call_right_after_the_start_waits_for_the_first_list() {
    let fleet = Fleet::unheard(1, patient(), |discover| discover);
    let (answer, ()) = tokio::join!(fleet.call(), async {
        sleep(Duration::from_millis(300)).await;
        fleet.list([0]).await;
    });
    assert!(answer.is_good() && answer.took >= Duration::from_millis(300), "{answer:?}");
    assert!(timeout(Duration::from_secs(1), fleet.channel.ready()).await.is_ok());

    let deadline = Fleet::unheard(1, command(), |discover| discover);
    let answer = deadline.call().await;
    assert_eq!(answer.took, Duration::from_millis(100), "no longer than its deadline: {answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_changes_nothing_until_the_age_that_the_caller_has_set() {
    let minute = Duration::from_mins(1);
    let limited = Fleet::new(2, command(), |discover| discover.max_age(minute)).await;
    let unlimited = Fleet::new(2, command(), |discover| discover).await;
    for fleet in [&limited, &unlimited] {
        fleet.source.failed("connection refused");
        sleep(Duration::from_secs(59)).await;
        assert_eq!(bad(&fleet.calls(10).await), 0);
        assert_eq!(fleet.metric("endpoints_stale"), 2);
        assert_eq!(fleet.channel.unconfirmed().as_deref(), Some("connection refused"));
    }
    sleep(minute).await;
    let said = limited.call().await;
    assert_eq!((said.code, said.reason.as_deref()), (Some(14), Some("no_endpoint")));
    assert!(said.message.contains("older than 60 s"), "{}", said.message);
    sleep(minute * 600).await;
    assert_eq!(bad(&unlimited.calls(10).await), 0);
    for fleet in [&limited, &unlimited] {
        fleet.list([0, 1]).await;
        assert_eq!((bad(&fleet.calls(10).await), fleet.channel.unconfirmed()), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let fleet = Fleet::new(2, patient(), |discover| discover).await;
    fleet.servers[0].takes.store(60_000, Ordering::SeqCst);
    let slow: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let channel = fleet.channel.clone();
                async move { call(&channel).await }
            })
        })
        .collect();
    sleep(Duration::from_millis(10)).await;
    let there = fleet.servers[0].in_flight.load(Ordering::SeqCst);
    assert!(there > 0);
    fleet.list([1]).await;
    assert_eq!(fleet.shares(fleet.calls(50)).await, [0, 50]);
    assert_eq!(fleet.servers[0].in_flight.load(Ordering::SeqCst), there, "nobody was cut off");
    for answer in slow {
        assert!(answer.await.unwrap().is_good());
    }
    assert_eq!(fleet.servers[0].links.load(Ordering::SeqCst), 0, "its connection is gone");
    assert!(fleet.servers[1].links.load(Ordering::SeqCst) > 0);
}

#[tokio::test(start_paused = true)]
async fn who_stays_keeps_its_connection_and_its_breaker_and_who_replaces_it_begins_anew() {
    let fleet = Fleet::new(3, command(), |discover| discover).await;
    let links = fleet.servers[0].links.load(Ordering::SeqCst);
    fleet.servers[0].now(Does::Fail);
    fleet.until_ejected(1).await;
    let weighty = Endpoint { weight: 3, ..endpoint(0) };
    fleet.source.found(vec![weighty, endpoint(1), endpoint(2)]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((fleet.fusebox.outliers().len(), fleet.servers[0].links.load(Ordering::SeqCst)), (1, links));
    let other = Endpoint { id: "its successor".into(), ..endpoint(0) };
    fleet.source.found(vec![other, endpoint(1), endpoint(2)]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(fleet.fusebox.outliers().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_channels_of_a_dropped_service_are_gone() {
    let fleet = Fleet::new(2, command(), |discover| discover).await;
    let Fleet { fusebox, channel, servers, .. } = fleet;
    let (held, dropped) = (channel.clone(), Instant::now());
    drop(channel);
    assert!(call(&held).await.is_good(), "a clone is the same channel");
    drop(held);
    sleep(Duration::from_millis(1)).await;
    assert!(Instant::now() - dropped < Duration::from_secs(1));
    assert!(servers.iter().all(|server| server.links.load(Ordering::SeqCst) == 0));
    assert!(!fusebox.registry_text().contains("user.service"), "{}", address(0));
}

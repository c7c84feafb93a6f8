//! Deadlines, and requests that are sent again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fusebox_policy::policy::{CommandPolicy, RetryPolicy};
use http_body_util::{BodyExt as _, StreamBody};
use tonic::body::Body;
use tower::Service as _;

use crate::common::command;
use crate::fleet::{Does, Fleet, address, bad, call_with, request};

fn retried() -> CommandPolicy {
    let retry = RetryPolicy {
        max_attempts: 2.try_into().unwrap(),
        per_try_timeout_ms: Some(30.try_into().unwrap()),
        budget_percent: 100.try_into().unwrap(),
    };
    CommandPolicy {
        retry: Some(retry),
        circuit_breaker: None,
        timeout_ms: Some(500.try_into().unwrap()),
        ..command()
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_repeated_elsewhere() {
    for does in [Does::Fail, Does::Hang] {
        let fleet = Fleet::new(2, retried(), |discover| discover.idempotent(|_| true)).await;
        fleet.servers[0].now(does);
        let answers = fleet.calls(200).await;
        assert_eq!(bad(&answers), 0, "{does:?}");
        let failed = fleet.servers[0].calls();
        assert!(failed > 0, "{does:?}");
        assert_eq!(fleet.servers[1].calls(), 200, "{does:?}: each call was answered by the other");
        let bytes = fleet.servers.iter().map(|server| server.bytes.load(Ordering::SeqCst)).sum::<usize>();
        assert_eq!(bytes, (200 + failed) * "hello".len(), "{does:?}: with its whole body");

        let once = Fleet::new(2, retried(), |discover| {
            discover.idempotent(|request| request.uri.path() == "/other")
        })
        .await;
        once.servers[0].now(does);
        let answers = once.calls(200).await;
        assert_eq!(bad(&answers), once.servers[0].calls(), "{does:?}");
        assert!(bad(&answers) > 0, "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_have_a_budget() {
    let mut policy = retried();
    policy.retry.as_mut().unwrap().budget_percent = 20.try_into().unwrap();
    let fleet = Fleet::new(2, policy, |discover| discover.idempotent(|_| true)).await;
    fleet.servers.iter().for_each(|server| server.now(Does::Fail));
    let calls = futures::future::join_all((0..500).map(|_| fleet.call())).await;
    assert_eq!(bad(&calls), 500);
    let attempts = fleet.servers.iter().map(|server| server.calls()).sum::<usize>();
    assert_eq!(attempts, 500 + 100 + 10, "a fifth, and the free ones");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_seen_goes_to_others_without_being_declared() {
    let policy = CommandPolicy { circuit_breaker: None, ..command() };
    let fleet = Fleet::new(3, policy.clone(), |discover| discover).await;
    (0..2).for_each(|n| fleet.servers[n].now(Does::Refuse));
    assert_eq!(bad(&fleet.calls(100).await), 0);
    assert_eq!(fleet.servers[2].bytes.load(Ordering::SeqCst), 100 * "hello".len());
    let alone = Fleet::new(1, policy, |discover| discover).await;
    alone.servers[0].now(Does::Refuse);
    let said = alone.call().await;
    assert_eq!((said.code, said.message.as_str()), (None, "refused"), "the error is the connection's own");
    assert_eq!(alone.servers[0].calls(), 1, "there is nobody else");
}

/// The only endpoint starts anew: who may be tried again is, once it is there.
#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_tried_again_where_there_is_nobody_else() {
    let mut policy = retried();
    policy.retry.as_mut().unwrap().max_attempts = 5.try_into().unwrap();
    let fleet = Fleet::new(1, policy, |discover| discover.idempotent(|_| true)).await;
    fleet.servers[0].now(Does::Refuse);
    let back = async {
        for _ in 0..500 {
            if fleet.servers[0].calls() >= 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fleet.servers[0].now(Does::Answer);
    };
    let (said, ()) = tokio::join!(fleet.call(), back);
    assert!(said.is_good(), "{said:?}");
    fleet.servers[0].now(Does::Refuse);
    let before = fleet.servers[0].calls();
    assert_eq!(fleet.call().await.message, "refused");
    assert_eq!(fleet.servers[0].calls() - before, 5, "as often as the policy says");
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_is_sent_once() {
    let fleet = Fleet::new(2, retried(), |discover| discover.idempotent(|_| true)).await;
    fleet.servers.iter().for_each(|server| server.now(Does::Fail));
    let chunk = || Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(vec![0; 40 << 10])));
    let body = StreamBody::new(futures::stream::iter([chunk(), chunk()]));
    let said = call_with(&fleet.channel, request(Body::new(body))).await;
    assert_eq!(said.code, Some(13));
    let attempts = fleet.servers.iter().map(|server| server.calls()).sum::<usize>();
    assert_eq!(attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_earliest_of_all_and_travels_on() {
    let policy = CommandPolicy { circuit_breaker: None, ..command() };
    let fleet = Fleet::new(1, policy, |discover| discover).await;
    fleet.servers[0].now(Does::Hang);
    let said = fleet.call().await;
    assert_eq!((said.code, said.reason.as_deref()), (Some(4), Some("timeout")));
    assert_eq!((said.took, fleet.servers[0].told.load(Ordering::SeqCst)), (Duration::from_millis(100), 100));

    let mut hurried = request(Body::empty());
    hurried.headers_mut().insert("grpc-timeout", "40m".parse().unwrap());
    let said = call_with(&fleet.channel, hurried).await;
    assert_eq!((said.code, said.took), (Some(4), Duration::from_millis(40)), "its own");

    let outer = CommandPolicy { timeout_ms: Some(60.try_into().unwrap()), ..CommandPolicy::default() };
    fleet.fusebox.apply(&{
        let mut policy = crate::common::policy(CommandPolicy { circuit_breaker: None, ..command() });
        policy.outbound.commands.insert("outer".to_owned(), outer);
        policy
    });
    let enclosed =
        fleet.fusebox.command("outer").call(async || Ok::<_, std::io::Error>(fleet.call().await)).await;
    let said = enclosed.unwrap();
    assert_eq!((said.code, said.took), (Some(4), Duration::from_millis(60)), "that of what it is part of");
    assert_eq!(fleet.servers[0].told.load(Ordering::SeqCst), 60);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_an_answer_may_take_longer_and_holds_its_permit() {
    let policy = CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..command() };
    let fleet = Fleet::new(1, policy, |discover| discover).await;
    fleet.servers[0].now(Does::Stream);
    let response = fleet.channel.clone().call(request(Body::empty())).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let full = fleet.call().await;
    assert_eq!((full.code, full.reason.as_deref()), (Some(8), Some("limit")));
    let mut body = response.into_body();
    assert!(tokio::time::timeout(Duration::from_mins(1), body.frame()).await.is_err(), "it is not cut");
    drop(body);
    fleet.servers[0].now(Does::Answer);
    assert!(fleet.call().await.is_good(), "{}", address(0));
}

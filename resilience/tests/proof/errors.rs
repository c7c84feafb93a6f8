//! The lists of a policy, and fallbacks that take time.

use fusebox::{Class, CommandError, ErrorCode};
use fusebox_policy::policy::{CommandPolicy, ErrorClasses};
use futures::FutureExt;
use tonic::{Code, Status};

use crate::common::calls::{CLIENT, DOWN, Oops, assert_outcomes, end, fail, fixed, ms, slow, succeed, with};
use crate::common::{metric, outcomes, policy, state};

fn lists(ignore: &[ErrorCode], count: &[ErrorCode]) -> CommandPolicy {
    let errors =
        ErrorClasses { ignore: ignore.iter().copied().collect(), count: count.iter().copied().collect() };
    CommandPolicy { errors, ..with(|_| ()) }
}

#[tokio::test(start_paused = true)]
async fn the_lists_come_before_what_a_status_says_of_itself() {
    let (fusebox, c) = fixed(lists(&[ErrorCode::Grpc(14)], &[ErrorCode::Grpc(5)]));
    let call = |code| c.call(move || async move { Err::<u8, _>(Status::new(code, "")) }).or_fallback(|_| 0);
    assert!(call(Code::Unavailable).await.is_err(), "ignored: no fallback runs");
    assert_eq!(call(Code::NotFound).await.unwrap(), 0, "counted: a fallback runs");
    assert!(call(Code::InvalidArgument).await.is_err(), "in no list: a client error as ever");
    assert_eq!(call(Code::Internal).await.unwrap(), 0, "in no list: a failure as ever");
    assert_outcomes(&fusebox, &[("client_error", 2), ("failure", 2)]);
    for _ in 0..20 {
        call(Code::Unavailable).await.unwrap_err();
    }
    assert_eq!(state(&fusebox), 0);
    for _ in 0..2 {
        call(Code::NotFound).await.unwrap();
    }
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_with_a_code_of_its_own_is_listed_by_it_and_one_without_is_not() {
    let (fusebox, c) = fixed(lists(&[ErrorCode::Http(503)], &[ErrorCode::Http(404)]));
    let busy = Oops(Class::Failure, Some(ErrorCode::Http(503)));
    let missing = Oops(Class::Client, Some(ErrorCode::Http(404)));
    let elsewhere = Oops(Class::Client, Some(ErrorCode::Grpc(5)));
    for (error, outcome) in [
        (busy, "client_error"),
        (missing, "failure"),
        (elsewhere, "client_error"),
        (CLIENT, "client_error"),
        (DOWN, "failure"),
    ] {
        let before = outcomes(&fusebox, outcome);
        assert_eq!(end(&c, Err(error)).await, Err(CommandError::Failed(error)), "the error itself stays");
        assert_eq!(outcomes(&fusebox, outcome), before + 1, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_follow_the_policy() {
    let missing = Err(Oops(Class::Client, Some(ErrorCode::Http(404))));
    let (fusebox, c) = fixed(lists(&[], &[]));
    end(&c, missing).await.unwrap_err();
    fusebox.apply(&policy(lists(&[], &[ErrorCode::Http(404)])));
    end(&c, missing).await.unwrap_err();
    assert_outcomes(&fusebox, &[("client_error", 1), ("failure", 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_ignored_error_at_the_deadline_is_a_timeout_all_the_same() {
    let (fusebox, c) = fixed(lists(&[ErrorCode::Http(503)], &[]));
    let busy = Oops(Class::Failure, Some(ErrorCode::Http(503)));
    assert_eq!(slow(&c, 100, Err(busy)).await, Err(CommandError::Timeout(ms(100))));
    assert_outcomes(&fusebox, &[("timeout", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_takes_time_gets_the_error_and_its_answer_is_the_answer() {
    let (fusebox, c) = fixed(with(|_| ()));
    let failed = || c.call(|| async { Err::<u8, _>(DOWN) });
    let answer = failed().or_fallback_async(|error| async move {
        tokio::time::sleep(ms(5000)).await;
        assert_eq!(error, CommandError::Failed(DOWN));
        Ok(5)
    });
    assert_eq!(answer.await, Ok(5), "it has no deadline of its own");
    let answer = failed().or_fallback_async(|error| async { Err(error) });
    assert_eq!(answer.await, Err(CommandError::Failed(DOWN)));
    let call = c.call(|| async { Err::<u8, _>(CLIENT) });
    let answer = call.or_fallback_async(|_| async { panic!("it ran for a client error") });
    assert_eq!(answer.await, Err(CommandError::Failed(CLIENT)));
    let answer = c.call(|| async { Ok::<u8, Oops>(1) }).or_fallback_async(|_| async { Ok(2) });
    assert_eq!(answer.await, Ok(1));
    assert_eq!(metric(&fusebox, "command_fallbacks_total{command=\"c\"}"), 2);
}

#[tokio::test(start_paused = true)]
async fn policy_switches_a_fallback_that_takes_time_off() {
    let (fusebox, c) = fixed(CommandPolicy { fallback_enabled: false, ..with(|_| ()) });
    let call = c.call(|| async { Err::<u8, _>(DOWN) });
    let answer = call.or_fallback_async(|_| async { panic!("it ran") });
    assert_eq!(answer.await, Err(CommandError::Failed(DOWN)));
    let count = |name| metric(&fusebox, &format!("{name}_total{{command=\"c\"}}"));
    assert_eq!((count("command_fallbacks"), count("command_fallbacks_rejected")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn fallbacks_have_a_limit_of_their_own_and_one_more_gets_the_error() {
    // None: Hystrix's ten.
    for (declared, limit) in [(Some(2), 2_u32), (None, 10)] {
        let declared: Option<u64> = declared;
        let (fusebox, c) = fixed(CommandPolicy {
            fallback_max_concurrent_requests: declared.map(|limit| limit.try_into().unwrap()),
            ..CommandPolicy::default()
        });
        let hangs = || {
            let call = c.call(|| async { Err::<u8, _>(DOWN) });
            Box::pin(call.or_fallback_async(|_| std::future::pending()))
        };
        let mut running: Vec<_> = (0..limit).map(|_| hangs()).collect();
        for fallback in &mut running {
            assert!(fallback.as_mut().now_or_never().is_none());
        }
        let mut more = hangs();
        assert_eq!(more.as_mut().now_or_never(), Some(Err(CommandError::Failed(DOWN))));
        let count = |name| metric(&fusebox, &format!("{name}_total{{command=\"c\"}}"));
        assert_eq!(count("command_fallbacks"), u64::from(limit));
        assert_eq!(count("command_fallbacks_rejected"), 1);
        let plain = c.call(|| async { Err::<u8, _>(DOWN) }).or_fallback(|_| 3);
        assert_eq!(plain.await, Ok(3), "one that is ready at once has no limit");
        running.pop();
        assert!(hangs().as_mut().now_or_never().is_none(), "one that is dropped makes room");
        let call = c.call(|| async { Err::<u8, _>(DOWN) });
        assert_eq!(call.or_fallback_async(|_| async { Ok(4) }).await, Ok(4), "and so does one that ended");
        let call = c.call(|| async { Err::<u8, _>(DOWN) });
        assert_eq!(call.or_fallback_async(|_| async { Ok(4) }).await, Ok(4));
    }
}

#[tokio::test(start_paused = true)]
async fn the_call_is_over_when_its_fallback_begins() {
    let (fusebox, c) = fixed(CommandPolicy {
        max_concurrent_requests: Some(1.try_into().unwrap()),
        ..with(|b| b.error_percent_threshold = 100.try_into().unwrap())
    });
    let call = c.call(|| async {
        tokio::task::yield_now().await;
        Err::<u8, _>(DOWN)
    });
    let mut hangs = Box::pin(call.or_fallback_async(|_| std::future::pending()));
    assert!(hangs.as_mut().now_or_never().is_none() && hangs.as_mut().now_or_never().is_none());
    assert_eq!(crate::common::in_flight(&fusebox), 0);
    succeed(&c, 1).await;
    drop(hangs);
    fail(&c, 1).await;
    assert_outcomes(&fusebox, &[("success", 1), ("failure", 2)]);
}

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use fusebox_policy::policy::{BreakerMode, MethodMatch};
use fusebox_policy::wire::BreakerState;
use fusebox_policy::{Policy, PolicyBuilder};
use serde_json::Value;
use tokio::time::advance;

use super::history::Window;
use super::sample::{Counts, Sample};
use super::*;
use crate::clock::Now;
use crate::latency::{Durations, Latency};
use crate::outcome::Outcome;
use crate::slot::Write;
use crate::{CommandError, Fusebox};

const SECOND: Duration = Duration::from_secs(1);

/// Every field that the dashboard's scripts assert, read or show, by file of the Netflix dashboard:
/// `hystrixCommand.js` (validateData) and `hystrixCircuit.html`.
const COMMAND: [&str; 41] = [
    "reportingHosts",
    "type",
    "name",
    "group",
    "currentTime",
    "isCircuitBreakerOpen",
    "errorPercentage",
    "errorCount",
    "requestCount",
    "rollingCountCollapsedRequests",
    "rollingCountExceptionsThrown",
    "rollingCountFailure",
    "rollingCountFallbackFailure",
    "rollingCountFallbackRejection",
    "rollingCountFallbackSuccess",
    "rollingCountResponsesFromCache",
    "rollingCountSemaphoreRejected",
    "rollingCountShortCircuited",
    "rollingCountSuccess",
    "rollingCountThreadPoolRejected",
    "rollingCountTimeout",
    "rollingCountBadRequests",
    "currentConcurrentExecutionCount",
    "latencyExecute_mean",
    "latencyExecute",
    "latencyTotal_mean",
    "latencyTotal",
    "propertyValue_circuitBreakerRequestVolumeThreshold",
    "propertyValue_circuitBreakerSleepWindowInMilliseconds",
    "propertyValue_circuitBreakerErrorThresholdPercentage",
    "propertyValue_circuitBreakerForceOpen",
    "propertyValue_circuitBreakerForceClosed",
    "propertyValue_circuitBreakerEnabled",
    "propertyValue_executionIsolationStrategy",
    "propertyValue_executionIsolationThreadTimeoutInMilliseconds",
    "propertyValue_executionIsolationThreadInterruptOnTimeout",
    "propertyValue_executionIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_requestCacheEnabled",
    "propertyValue_requestLogEnabled",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
];

/// The same, `hystrixThreadPool.js` and `hystrixThreadPool.html`.
const THREAD_POOL: [&str; 15] = [
    "type",
    "name",
    "currentActiveCount",
    "currentCompletedTaskCount",
    "currentCorePoolSize",
    "currentLargestPoolSize",
    "currentMaximumPoolSize",
    "currentPoolSize",
    "currentQueueSize",
    "currentTaskCount",
    "rollingCountThreadsExecuted",
    "rollingMaxActiveThreads",
    "reportingHosts",
    "propertyValue_queueSizeRejectionThreshold",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
];

fn counts(of: &[(Outcome, u64)]) -> Counts {
    let mut counts = Counts::default();
    for (outcome, count) in of {
        counts.outcomes[*outcome as usize] = *count;
    }
    counts
}

fn durations(millis: impl IntoIterator<Item = u64>) -> Durations {
    let latency = Latency::default();
    millis.into_iter().for_each(|millis| latency.record(millis * 1_000_000, Write::Shared));
    let mut durations = Durations::default();
    durations.add(&latency);
    durations
}

fn sample(policy: PolicyBuilder<'_>) -> Sample {
    let policy = policy.build().unwrap().outbound.commands["find_user"].clone();
    Sample {
        command: "find_user",
        counts: Counts::default(),
        durations: Durations::default(),
        in_flight: 0,
        breaker: BreakerState::Closed,
        policy: Arc::new(policy),
    }
}

/// A command of which every number is another.
fn golden() -> (Sample, Window) {
    let policy = PolicyBuilder::new().command("find_user", |command| {
        command
            .timeout(Duration::from_millis(250))
            .max_concurrent_requests(100)
            .fallback_max_concurrent_requests(12)
            .circuit_breaker(|breaker| {
                breaker
                    .error_percent_threshold(25)
                    .request_volume_threshold(30)
                    .sleep_window(Duration::from_secs(3))
            })
    });
    let all = [
        (Outcome::Success, 60),
        (Outcome::Failure, 20),
        (Outcome::Timeout, 10),
        (Outcome::ClientError, 7),
        (Outcome::Cancelled, 2),
        (Outcome::Rejected, 4),
        (Outcome::RateLimited, 1),
        (Outcome::Open, 3),
    ];
    let counts = Counts { fallbacks: 18, fallbacks_failed: 5, fallbacks_rejected: 6, ..counts(&all) };
    let mut sample = Sample {
        in_flight: 8,
        breaker: BreakerState::Open,
        counts,
        durations: durations(1..=100),
        ..sample(policy)
    };
    sample.counts.outcomes[Outcome::Success as usize] += 1000;
    let window = Window { counts, durations: sample.durations.clone(), max_in_flight: 9 };
    (sample, window)
}

#[test]
fn the_events_are_those_of_the_golden_file() {
    let (sample, window) = golden();
    let events = [event::command(&sample, &window, 1_767_225_600_000), {
        event::thread_pool(&sample, &window, 1_767_225_600_000)
    }];
    let golden: [Value; 2] = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(events, golden, "events now: {}", serde_json::to_string_pretty(&events).unwrap());
}

/// The dashboard drops an event in which one of them is missing or null.
#[test]
fn every_field_that_the_dashboard_reads_is_there() {
    let (sample, window) = golden();
    for (event, names) in [
        (event::command(&sample, &window, 0), &COMMAND[..]),
        (event::thread_pool(&sample, &window, 0), &THREAD_POOL[..]),
    ] {
        for name in names {
            assert!(!event[name].is_null(), "{name} of {event}");
        }
    }
    let event = event::command(&sample, &window, 0);
    for percentile in ["0", "25", "50", "75", "90", "95", "99", "99.5", "100"] {
        assert!(event["latencyExecute"][percentile].is_u64() && event["latencyTotal"][percentile].is_u64());
    }
}

#[test]
fn the_error_percentage_is_hystrixs_with_refusals_and_without_short_circuits() {
    let percentage = |of: &[(Outcome, u64)]| {
        let window = Window { counts: counts(of), ..Window::default() };
        let event = event::command(&sample(PolicyBuilder::new().command("find_user", |c| c)), &window, 0);
        event["errorPercentage"].as_u64().unwrap()
    };
    assert_eq!(percentage(&[]), 0);
    assert_eq!(percentage(&[(Outcome::Open, 9)]), 0);
    let ignored = [(Outcome::Open, 5), (Outcome::ClientError, 5), (Outcome::Cancelled, 5)];
    assert_eq!(percentage(&[&[(Outcome::Success, 3), (Outcome::Rejected, 1)], &ignored[..]].concat()), 25);
    assert_eq!(percentage(&[(Outcome::Success, 2), (Outcome::Timeout, 1)]), 33, "cut off, not rounded");
}

#[test]
fn a_policy_without_limits_has_numbers_all_the_same() {
    let sample = sample(PolicyBuilder::new().command("find_user", |c| c));
    let event = event::command(&sample, &Window::default(), 0);
    assert_eq!(event["propertyValue_circuitBreakerEnabled"], false);
    assert_eq!(event["propertyValue_executionTimeoutInMilliseconds"], i32::MAX);
    let pool = event::thread_pool(&Sample { in_flight: 3, ..sample }, &Window::default(), 0);
    assert_eq!((&pool["currentPoolSize"], &pool["currentMaximumPoolSize"]), (&3.into(), &i32::MAX.into()));
}

#[test]
fn modes_and_states_are_as_callers_feel_them() {
    let event = |mode, state| {
        let policy = PolicyBuilder::new().command("find_user", |c| c.circuit_breaker(|b| b.mode(mode)));
        event::command(&Sample { breaker: state, ..sample(policy) }, &Window::default(), 0)
    };
    let forced = event(BreakerMode::ForcedOpen, BreakerState::Open);
    assert_eq!(
        (&forced["propertyValue_circuitBreakerForceOpen"], &forced["isCircuitBreakerOpen"]),
        (&true.into(), &true.into())
    );
    let forced = event(BreakerMode::ForcedClosed, BreakerState::Closed);
    assert_eq!(forced["propertyValue_circuitBreakerForceClosed"], true);
    assert_eq!(
        event(BreakerMode::Disabled, BreakerState::Closed)["propertyValue_circuitBreakerEnabled"],
        false
    );
    assert_eq!(event(BreakerMode::Enforce, BreakerState::HalfOpen)["isCircuitBreakerOpen"], true);
}

#[test]
fn a_pool_is_named_so_that_the_dashboards_selector_finds_it() {
    let mut sample = sample(PolicyBuilder::new().command("find_user", |c| c));
    sample.command = "(other)";
    let pool = event::thread_pool(&sample, &Window::default(), 0);
    let command = event::command(&sample, &Window::default(), 0);
    assert_eq!(
        (&pool["name"], &command["threadPool"], &command["name"]),
        (&"_other_".into(), &"_other_".into(), &"(other)".into())
    );
}

/// One success a second.
fn at_second(second: u64) -> (Now, Sample) {
    let mut sample = sample(PolicyBuilder::new().command("find_user", |c| c));
    sample.counts = counts(&[(Outcome::Success, 100 + second)]);
    sample.durations = durations((0..100 + second).map(|_| 1));
    // In flight only in the fifth second.
    sample.in_flight = u32::from(second == 5) * 7;
    (Now(1_000_000_000_000 + second * 1_000_000_000), sample)
}

#[test]
fn counts_look_back_ten_seconds_and_latencies_up_to_sixty() {
    let mut history = History::default();
    for second in 0..200 {
        let (now, sample) = at_second(second);
        history.keep(now, std::slice::from_ref(&sample));
        let window = history.window(&sample);
        assert_eq!(window.counts.of(Outcome::Success), second.min(10), "second {second}");
        let measured = window.durations.count();
        assert!(measured == second || (51..=60).contains(&measured), "second {second}: {measured}");
        assert_eq!(window.max_in_flight == 7, (5..=15).contains(&second), "second {second}");
    }
}

#[test]
fn a_command_that_came_later_counts_from_its_first_call() {
    let mut history = History::default();
    history.keep(at_second(0).0, &[]);
    let (now, sample) = at_second(1);
    history.keep(now, std::slice::from_ref(&sample));
    let window = history.window(&sample);
    assert_eq!((window.counts.of(Outcome::Success), window.durations.count()), (101, 101));
}

/// Never more than happened in ten seconds, although nothing was looked at for half a minute.
#[test]
fn after_a_pause_the_window_starts_anew() {
    let mut history = History::default();
    for second in [0, 1, 2, 32] {
        let (now, sample) = at_second(second);
        history.keep(now, std::slice::from_ref(&sample));
    }
    assert_eq!(history.window(&at_second(32).1).counts.of(Outcome::Success), 0);
}

#[test]
fn a_late_timer_does_not_shorten_the_window() {
    let mut history = History::default();
    for second in 0..30 {
        let (Now(now), sample) = at_second(second);
        history.keep(Now(now + second % 3 * 200_000_000), std::slice::from_ref(&sample));
        assert_eq!(history.window(&sample).counts.of(Outcome::Success), second.min(10), "second {second}");
    }
}

/// A policy whose breaker opens at two failures in a row and sleeps a second.
fn policy() -> Policy {
    let breaker = PolicyBuilder::new()
        .command("c", |c| c.circuit_breaker(|b| b.consecutive_failures(2).sleep_window(SECOND)))
        .method(MethodMatch::http_path("/"), |m| m);
    breaker.build().unwrap()
}

/// What the body gives without waiting; None: it would have to wait, or it has ended.
fn next(stream: &mut HystrixStream) -> Option<String> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match Pin::new(stream).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()),
        Poll::Ready(None) | Poll::Pending => None,
        Poll::Ready(Some(Err(never))) => match never {},
    }
}

fn events(text: &str) -> BTreeMap<String, Value> {
    let events = text.split_terminator("\n\n").map(|event| {
        let event: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event)
    });
    events.collect()
}

async fn fail(fusebox: &Fusebox) -> Result<(), CommandError<io::Error>> {
    fusebox.command("c").call(async || Err(io::Error::other("down"))).await
}

#[tokio::test(start_paused = true)]
async fn the_first_events_come_at_once_and_then_each_second() {
    let fusebox = Fusebox::fixed(policy());
    let response = fusebox.hystrix_stream();
    assert_eq!(response.headers()["content-type"], "text/event-stream;charset=UTF-8");
    let mut stream = response.into_body();
    assert_eq!(next(&mut stream).as_deref(), Some("ping: \n\n"), "no command yet");
    assert_eq!(next(&mut stream), None);
    let _ = fail(&fusebox).await;
    advance(Duration::from_millis(999)).await;
    assert_eq!(next(&mut stream), None);
    advance(Duration::from_millis(1)).await;
    let text = next(&mut stream).unwrap();
    let events = events(&text);
    assert_eq!(events.keys().collect::<Vec<_>>(), ["HystrixCommand", "HystrixThreadPool"]);
    assert_eq!(text.matches("\n\n").count(), 2, "{text}");
    let command = &events["HystrixCommand"];
    let wall = jiff::Timestamp::now().as_millisecond() - command["currentTime"].as_i64().unwrap();
    assert!(wall.abs() < 60_000, "{wall} ms off");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_only() {
    let fusebox = Fusebox::fixed(policy());
    let mut stream = fusebox.hystrix_stream().into_body();
    let _ = fail(&fusebox).await;
    let first = next(&mut stream).unwrap();
    assert_eq!(events(&first)["HystrixCommand"]["rollingCountFailure"], 0, "from before the stream");
    advance(SECOND * 3).await;
    let _ = fail(&fusebox).await;
    let newest = next(&mut stream).unwrap();
    assert_eq!(events(&newest)["HystrixCommand"]["rollingCountFailure"], 1);
    assert_eq!(next(&mut stream), None, "what was missed is gone");
    advance(SECOND).await;
    assert!(next(&mut stream).is_some());
}

/// hystrix-go's stream asks its breaker, and by that may open it.
#[tokio::test(start_paused = true)]
async fn to_read_the_stream_changes_no_breaker() {
    let fusebox = Fusebox::fixed(policy());
    let mut stream = fusebox.hystrix_stream().into_body();
    let transitions = || {
        let text = fusebox.registry_text();
        let lines = text.lines().filter(|line| line.starts_with("fusebox_breaker_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let _ = (fail(&fusebox).await, fail(&fusebox).await);
    assert!(matches!(fail(&fusebox).await, Err(CommandError::Open { .. })));
    let open = transitions();
    // Long after the sleep window, when the next call would be a probe.
    for _ in 0..20 {
        let text = next(&mut stream).unwrap();
        assert_eq!(events(&text)["HystrixCommand"]["isCircuitBreakerOpen"], true);
        advance(SECOND).await;
    }
    assert_eq!(transitions(), open);
    // The one probe is still there to be had, and a second is not.
    let probe = fusebox.command("c").call(async || {
        let text = next(&mut stream).unwrap();
        assert_eq!(events(&text)["HystrixCommand"]["isCircuitBreakerOpen"], true, "half-open");
        assert!(matches!(fail(&fusebox).await, Err(CommandError::Open { .. })));
        Ok::<_, io::Error>(())
    });
    assert!(probe.await.is_ok());
    advance(SECOND).await;
    let text = next(&mut stream).unwrap();
    assert_eq!(events(&text)["HystrixCommand"]["isCircuitBreakerOpen"], false);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_a_success_or_a_failure() {
    let fusebox = Fusebox::fixed(policy());
    let mut stream = fusebox.hystrix_stream().into_body();
    let c = fusebox.command("c");
    next(&mut stream);
    let down = async || Err::<(), _>(io::Error::other("down"));
    assert!(c.call(down).or_fallback(|_| ()).await.is_ok());
    assert!(c.call(down).or_fallback_async(async |_| Ok(())).await.is_ok());
    assert!(c.call(down).or_fallback_async(async |error| Err(error)).await.is_err());
    advance(SECOND).await;
    let text = next(&mut stream).unwrap();
    let event = &events(&text)["HystrixCommand"];
    assert_eq!(
        (&event["rollingCountFallbackSuccess"], &event["rollingCountFallbackFailure"]),
        (&2.into(), &1.into())
    );
    assert_eq!(event["rollingCountExceptionsThrown"], 1);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_told_to() {
    let fusebox = Fusebox::fixed(policy());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let mut stream = fusebox.hystrix_stream().into_body().until(async move { drop(ended.await) });
    assert!(next(&mut stream).is_some() && !stream.is_end_stream());
    drop(end);
    advance(SECOND).await;
    for _ in 0..2 {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut stream).poll_frame(&mut cx), Poll::Ready(None)));
    }
    assert!(stream.is_end_stream());
}

/// There is no task: once the body is dropped nothing holds on to the fusebox.
#[tokio::test]
async fn to_drop_it_is_the_end() {
    let fusebox = Fusebox::fixed(policy());
    let shared = Arc::downgrade(&fusebox.shared);
    let mut stream = fusebox.hystrix_stream().into_body();
    next(&mut stream);
    drop(fusebox);
    assert!(shared.upgrade().is_some(), "the stream goes on");
    drop(stream);
    assert!(shared.upgrade().is_none());
}

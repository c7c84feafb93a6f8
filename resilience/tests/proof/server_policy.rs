//! `Fusebox::server_layer`: rates, the answers of the policy itself, reloads and the shadow, without a
//! network.

use std::convert::Infallible;
use std::time::Duration;

use fusebox::{Fusebox, HttpBody, Policy};
use fusebox_policy::policy::{Inbound, MethodMatch, MethodPolicy, ServerPolicy, Shadow, StaticAnswer};
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::time::{advance, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::common::calls::{ms, rate};
use crate::common::http::{Step, Steps, get, grpc, response};
use crate::common::metric;

const USERS: &str = "GET /users";
const USER: &str = "user.v1.UserService/GetUser";

fn timed(millis: u64) -> ServerPolicy {
    ServerPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..ServerPolicy::default() }
}

fn limited(limit: u64) -> ServerPolicy {
    ServerPolicy { max_concurrent_requests: Some(limit.try_into().unwrap()), ..ServerPolicy::default() }
}

fn rated(per_second: u64, burst: u64) -> ServerPolicy {
    ServerPolicy { rate_limit: Some(rate(per_second, burst)), ..ServerPolicy::default() }
}

fn matches(name: &str) -> MethodMatch {
    match name {
        USERS => MethodMatch::Http { method: Some("GET".into()), path_prefix: "/users".into() },
        "* /" => MethodMatch::Http { method: None, path_prefix: "/".into() },
        _ => MethodMatch::Grpc { service: "user.v1.UserService".into(), method: Some("GetUser".into()) },
    }
}

fn inbound<const N: usize>(methods: [(&str, ServerPolicy); N]) -> Inbound {
    let of = |(name, policy)| MethodPolicy { matches: matches(name), policy };
    Inbound { default: ServerPolicy::default(), methods: methods.map(of).into() }
}

fn policy<const N: usize>(methods: [(&str, ServerPolicy); N]) -> Policy {
    Policy { inbound: inbound(methods), ..Policy::compiled_in() }
}

fn counted(fusebox: &Fusebox, method: &str, outcome: &str) -> u64 {
    metric(fusebox, &format!("server_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}}"))
}

fn in_flight(fusebox: &Fusebox, method: &str) -> u64 {
    metric(fusebox, &format!("server_in_flight{{method=\"{method}\"}}"))
}

type Served = Response<HttpBody<Steps>>;

/// A request to a handler that takes so long and answers so.
async fn serve(fusebox: &Fusebox, request: Request<()>, millis: u64, answer: Response<Steps>) -> Served {
    let handler = service_fn(async |_: Request<()>| {
        if millis > 0 {
            sleep(ms(millis)).await;
        }
        Ok::<_, Infallible>(answer.clone())
    });
    fusebox.server_layer().layer(handler).oneshot(request).await.unwrap()
}

fn ok() -> Response<Steps> {
    response(200, &[("grpc-status", "0")], Steps::of([Step::Data("Ada"), Step::Wait]))
}

fn said<'a>(answer: &'a Served, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text(answer: Served) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_per_method_and_refused_in_each_protocol() {
    let fusebox = Fusebox::fixed(policy([(USERS, rated(1, 2)), (USER, rated(1, 1))]));
    for _ in 0..2 {
        assert_eq!(text(serve(&fusebox, get(), 0, ok()).await).await, "Ada");
    }
    let refused = serve(&fusebox, get(), 0, ok()).await;
    assert_eq!(refused.status(), 429);
    assert_eq!((said(&refused, "fusebox-reason"), said(&refused, "retry-after")), (Some("rate"), Some("1")));
    assert_eq!(text(refused).await, r#"{"error":"too many requests a second","reason":"rate"}"#);
    assert_eq!(text(serve(&fusebox, grpc(), 0, ok()).await).await, "Ada", "the other method has its own");
    let refused = serve(&fusebox, grpc(), 0, ok()).await;
    assert_eq!((refused.status().as_u16(), said(&refused, "grpc-status")), (200, Some("8")));
    assert_eq!((said(&refused, "fusebox-reason"), said(&refused, "retry-after")), (Some("rate"), Some("1")));
    for (method, passed) in [(USERS, 2), (USER, 1)] {
        assert_eq!(
            (counted(&fusebox, method, "success"), counted(&fusebox, method, "rate_limited")),
            (passed, 1)
        );
        assert_eq!(in_flight(&fusebox, method), 0);
    }
    advance(Duration::from_secs(1)).await;
    assert_eq!(text(serve(&fusebox, get(), 0, ok()).await).await, "Ada");
}

fn with_answer(mut policy: ServerPolicy) -> ServerPolicy {
    let answer =
        StaticAnswer::Body { content_type: "text/plain; charset=utf-8".into(), body: "nobody".into() };
    policy.fallback = Some(answer);
    policy
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_the_policy_stands_in_for_timeout_limit_and_rate() {
    for (rule, reason, outcome) in [
        (timed(10), "timeout", "timeout"),
        (limited(1), "limit", "rejected"),
        (rated(1, 1), "rate", "rate_limited"),
    ] {
        let fusebox = Fusebox::fixed(policy([(USERS, with_answer(rule))]));
        let _holds = serve(&fusebox, get(), 0, ok()).await;
        let answer = serve(&fusebox, get(), 20, ok()).await;
        assert_eq!(answer.status(), 200, "{reason}");
        assert_eq!(said(&answer, "content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(
            (said(&answer, "fusebox-fallback"), said(&answer, "fusebox-reason")),
            (Some("true"), Some(reason))
        );
        assert_eq!(text(answer).await, "nobody");
        assert_eq!(counted(&fusebox, USERS, outcome), 1, "counted as what it is");
        assert_eq!(metric(&fusebox, &format!("server_fallbacks_total{{method=\"{USERS}\"}}")), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_the_policy_follows_it_and_is_no_answer_to_anything_else() {
    let fusebox = Fusebox::fixed(policy([(USERS, with_answer(timed(10)))]));
    let failed = serve(&fusebox, get(), 0, response(500, &[], Steps::default())).await;
    assert_eq!(
        (failed.status().as_u16(), said(&failed, "fusebox-fallback")),
        (500, None),
        "the handler's own"
    );
    fusebox.apply(&policy([(USERS, timed(10))]));
    let refused = serve(&fusebox, get(), 20, ok()).await;
    assert_eq!((refused.status().as_u16(), said(&refused, "fusebox-fallback")), (504, None));
    fusebox.apply(&policy([(USERS, with_answer(timed(10)))]));
    assert_eq!(serve(&fusebox, get(), 20, ok()).await.status(), 200);
}

/// A path may match requests of either protocol.
#[tokio::test(start_paused = true)]
async fn a_grpc_request_never_gets_the_answer_of_an_http_method() {
    let fusebox = Fusebox::fixed(policy([("* /", with_answer(timed(10)))]));
    let refused = serve(&fusebox, grpc(), 20, ok()).await;
    assert_eq!((said(&refused, "grpc-status"), said(&refused, "fusebox-fallback")), (Some("4"), None));
    assert_eq!(said(&refused, "content-type"), Some("application/grpc"));
    assert_eq!(text(serve(&fusebox, get(), 20, ok()).await).await, "nobody");
    assert_eq!(metric(&fusebox, "server_fallbacks_total{method=\"* /\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn methods_that_move_go_and_come_keep_their_requests_in_flight() {
    let both = || policy([(USERS, limited(1)), (USER, limited(1))]);
    let fusebox = Fusebox::fixed(both());
    let stream = serve(&fusebox, get(), 0, ok()).await;
    let mut working = Box::pin(serve(&fusebox, grpc(), 50, ok()));
    assert!(working.as_mut().now_or_never().is_none());
    for reloaded in [
        policy([(USER, limited(1)), (USERS, limited(1))]),
        policy([(USER, limited(1))]),
        policy([]),
        policy([("* /", limited(1)), (USERS, limited(5))]),
        both(),
    ] {
        fusebox.apply(&reloaded);
        assert_eq!((in_flight(&fusebox, USERS), in_flight(&fusebox, USER)), (1, 1));
        assert_eq!(in_flight(&fusebox, "default"), 0);
    }
    assert_eq!(serve(&fusebox, get(), 0, ok()).await.status(), 429);
    assert_eq!(said(&serve(&fusebox, grpc(), 0, ok()).await, "grpc-status"), Some("8"));
    assert_eq!(text(working.await).await, "Ada");
    drop(stream);
    assert_eq!((in_flight(&fusebox, USERS), in_flight(&fusebox, USER)), (0, 0));
    assert_eq!(text(serve(&fusebox, get(), 0, ok()).await).await, "Ada");
    assert_eq!(counted(&fusebox, USERS, "cancelled"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_keeps_its_deadline_over_a_reload() {
    let fusebox = Fusebox::fixed(policy([(USERS, timed(100))]));
    let mut working = Box::pin(serve(&fusebox, get(), 80, ok()));
    assert!(working.as_mut().now_or_never().is_none());
    fusebox.apply(&policy([(USERS, timed(10))]));
    assert_eq!(serve(&fusebox, get(), 80, ok()).await.status(), 504);
    assert_eq!(working.await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_of_methods_counts_each_by_itself_and_acts_nowhere() {
    let active = [(USERS, ServerPolicy::default()), (USER, ServerPolicy::default())];
    let candidate =
        [(USERS, ServerPolicy { timeout_ms: timed(50).timeout_ms, ..limited(1) }), (USER, rated(1, 1))];
    let mut policy = policy(active);
    policy.shadow = Some(Shadow { inbound: Some(inbound(candidate)), outbound: None });
    let fusebox = Fusebox::fixed(policy);
    let shadow = |method: &str| {
        ["asked", "rejected", "rate_limited", "timeout"].map(|decision| {
            metric(&fusebox, &format!("server_shadow_total{{method=\"{method}\",decision=\"{decision}\"}}"))
        })
    };
    for _ in 0..3 {
        assert_eq!(text(serve(&fusebox, grpc(), 0, ok()).await).await, "Ada");
    }
    assert_eq!((shadow(USER), shadow(USERS)), ([3, 0, 2, 0], [0; 4]));
    let stream = serve(&fusebox, get(), 0, ok()).await;
    assert_eq!(text(serve(&fusebox, get(), 0, ok()).await).await, "Ada");
    assert_eq!(shadow(USERS), [2, 1, 0, 0], "the body holds the candidate's permit too");
    // As for the active policy: the timeout is that of the head.
    advance(ms(500)).await;
    assert_eq!(text(stream).await, "Ada");
    drop(serve(&fusebox, get(), 40, ok()).await);
    assert_eq!(shadow(USERS), [3, 1, 0, 0]);
    let late = serve(&fusebox, get(), 50, ok()).await;
    assert_eq!(text(late).await, "Ada");
    assert_eq!(shadow(USERS), [4, 1, 0, 1]);
    assert_eq!((counted(&fusebox, USERS, "success"), counted(&fusebox, USERS, "cancelled")), (3, 1));
}

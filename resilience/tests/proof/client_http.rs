//! `Command::http_layer` around a client that answers as a test says.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use fusebox::{Command, ErrorCode, Fusebox, HttpBody};
use fusebox_policy::policy::{BreakerMode, CommandPolicy, ErrorClasses};
use futures::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{advance, sleep};
use tower::{Layer, Service, service_fn};

use crate::common::calls::{CLIENT, OUTCOMES, end, fail, fixed, free, limited, ms, rated, with};
use crate::common::http::{Broken, Step, Steps, get, grpc, response};
use crate::common::{in_flight, outcomes, policy, state};

/// Sends a request to a service that answers so.
async fn send(c: &Command, request: Request<()>, answer: Response<Steps>) -> Response<HttpBody<Steps>> {
    let answer = Cell::new(Some(answer));
    let mut service = c.http_layer().layer(service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(answer.take().unwrap())
    }));
    service.call(request).await.unwrap()
}

/// The one outcome that was counted.
fn outcome(fusebox: &Fusebox) -> &'static str {
    let found: Vec<_> = OUTCOMES.into_iter().filter(|outcome| outcomes(fusebox, outcome) > 0).collect();
    assert!(found.len() == 1 && outcomes(fusebox, found[0]) == 1, "{found:?}");
    assert_eq!(in_flight(fusebox), 0);
    found[0]
}

async fn headers_of(c: &Command, request: Request<()>) -> HeaderMap {
    let seen = Arc::new(OnceLock::new());
    let mut service = c.http_layer().layer(service_fn(async |request: Request<()>| {
        seen.set(request.headers().clone()).unwrap();
        Ok::<_, Infallible>(response(200, &[], Steps::default()))
    }));
    service.call(request).await.unwrap();
    seen.get().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_grpc_is_its_status_in_head_or_trailers() {
    use Step::{Break, Data, Status, Trailers};
    let cases: [(&str, Option<&str>, Vec<Step>); 15] = [
        ("success", None, vec![Data("a"), Status("0")]),
        ("success", Some("0"), vec![]),
        ("client_error", None, vec![Status("5")]),
        ("client_error", Some("3"), vec![]),
        ("failure", Some("14"), vec![]),
        ("failure", None, vec![Data("a"), Data("b"), Status("13")]),
        ("failure", None, vec![Data("a")]),
        ("failure", None, vec![Data("a"), Trailers]),
        ("failure", None, vec![]),
        ("failure", None, vec![Data("a"), Break]),
        ("failure", Some("0"), vec![Status("14")]),
        ("failure", None, vec![Status("17")]),
        ("failure", None, vec![Status("no number")]),
        ("timeout", None, vec![Status("4")]),
        ("cancelled", None, vec![Status("1")]),
    ];
    for (expected, head, steps) in cases {
        let (fusebox, c) = fixed(free());
        let headers: Vec<_> = head.iter().map(|status| ("grpc-status", *status)).collect();
        let answer = send(&c, grpc(), response(200, &headers, Steps::of(steps.clone()))).await;
        let _ = answer.into_body().collect().await;
        assert_eq!(outcome(&fusebox), expected, "head {head:?}, body {steps:?}");
    }
    for (status, expected) in [(503, "failure"), (404, "client_error")] {
        let (fusebox, c) = fixed(free());
        send(&c, grpc(), response(status, &[], Steps::default())).await.collect().await.unwrap();
        assert_eq!(outcome(&fusebox), expected, "a proxy's {status}");
    }
}

/// Its trailers are in the body: who cannot read them must not call every answer a failure.
#[tokio::test(start_paused = true)]
async fn a_grpc_web_response_without_a_status_in_its_head_is_a_success() {
    for (expected, status) in [("success", None), ("failure", Some("14")), ("client_error", Some("5"))] {
        let (fusebox, c) = fixed(limited(1));
        let mut request = grpc();
        request.headers_mut().insert("content-type", "application/grpc-web+proto".parse().unwrap());
        let headers: Vec<_> = status.iter().map(|status| ("grpc-status", *status)).collect();
        let answer = send(&c, request, response(200, &headers, Steps::of([Step::Data("a")]))).await;
        answer.into_body().collect().await.unwrap();
        assert_eq!(outcome(&fusebox), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_http_is_its_status_and_whether_the_body_broke_off() {
    for (status, expected) in [
        (200, "success"),
        (302, "success"),
        (404, "client_error"),
        (429, "client_error"),
        (500, "failure"),
        (503, "failure"),
        (999, "failure"),
    ] {
        let (fusebox, c) = fixed(free());
        let body = Steps::of([Step::Data("a"), Step::Wait, Step::Data("b")]);
        let answer = send(&c, get(), response(status, &[("grpc-status", "13")], body)).await;
        assert_eq!((answer.status().as_u16(), in_flight(&fusebox)), (status, 1));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ab");
        assert_eq!(outcome(&fusebox), expected, "{status}");
    }
    let (fusebox, c) = fixed(free());
    let body = Steps::of([Step::Data("a"), Step::Break]);
    let answer = send(&c, get(), response(200, &[], body)).await;
    assert_eq!(answer.into_body().collect().await.unwrap_err(), Broken);
    assert_eq!(outcome(&fusebox), "failure");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_a_failure_and_its_error_stays() {
    let (fusebox, c) = fixed(free());
    let mut service =
        c.http_layer().layer(service_fn(async |_: Request<()>| Err::<Response<Steps>, _>(Broken)));
    assert_eq!(service.call(get()).await.unwrap_err(), Broken);
    assert_eq!(outcome(&fusebox), "failure");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_early_is_a_cancellation_however_late() {
    let (fusebox, c) = fixed(with(|_| ()));
    for polls in 0..3 {
        let body = Steps::of([Step::Data("a"), Step::Wait, Step::Data("b"), Step::Status("0")]);
        let mut answer = send(&c, grpc(), response(200, &[], body)).await;
        for _ in 0..polls {
            let _ = answer.body_mut().frame().now_or_never();
        }
        advance(ms(1000)).await;
        assert_eq!(in_flight(&fusebox), 1);
        drop(answer);
        assert_eq!((in_flight(&fusebox), outcomes(&fusebox, "cancelled")), (0, polls + 1));
    }
    assert_eq!((state(&fusebox), outcomes(&fusebox, "timeout")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_held_to_the_end_of_the_body() {
    let (fusebox, c) = fixed(limited(1));
    for steps in [vec![Step::Data("a"), Step::Wait, Step::Status("0")], vec![Step::Data("a"), Step::Break]] {
        let answer = send(&c, grpc(), response(200, &[], Steps::of(steps))).await;
        let refused = send(&c, grpc(), response(200, &[], Steps::default())).await;
        assert_eq!(refused.headers()["fusebox-reason"], "limit");
        let mut body = answer.into_body();
        let _ = body.collect().now_or_never();
        body = send(&c, get(), response(200, &[], Steps::default())).await.into_body();
        assert!(body.frame().await.is_none());
        assert_eq!(in_flight(&fusebox), 0);
    }
}

/// A server need not ask again after the last byte it was promised, nor for the body of a HEAD.
#[tokio::test(start_paused = true)]
async fn a_body_ends_with_the_last_byte_that_was_promised() {
    let of = |exact| Steps { exact, ..Steps::of([Step::Data("ab"), Step::Wait, Step::Data("c")]) };
    let promised = response(200, &[("content-length", "3")], of(None));
    for answer in [promised, response(200, &[], of(Some(3)))] {
        let (fusebox, c) = fixed(free());
        let mut answer = send(&c, get(), answer).await;
        assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(in_flight(&fusebox), 1);
        assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "c");
        drop(answer);
        assert_eq!(outcome(&fusebox), "success");
    }
    let (fusebox, c) = fixed(free());
    let head = Request::head("http://service/").body(()).unwrap();
    let answer = send(&c, head, response(200, &[("content-length", "3")], Steps::default())).await;
    assert_eq!(outcome(&fusebox), "success");
    drop(answer);
    let (fusebox, c) = fixed(free());
    let empty = Steps { says_end: true, ..Steps::default() };
    drop(send(&c, get(), response(204, &[], empty)).await);
    assert_eq!(outcome(&fusebox), "success");
}

/// What ends with trailers has not ended with its data.
#[tokio::test(start_paused = true)]
async fn the_length_of_a_grpc_body_does_not_end_it_before_its_status() {
    for (status, expected) in [("0", "success"), ("14", "failure")] {
        let (fusebox, c) = fixed(free());
        let body = Steps::of([Step::Data("abc"), Step::Status(status)]);
        send(&c, grpc(), response(200, &[("content-length", "3")], body)).await.collect().await.unwrap();
        assert_eq!(outcome(&fusebox), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_written_as_grpc_timeout_and_never_lengthened() {
    let (_fusebox, c) = fixed(CommandPolicy { timeout_ms: Some(250.try_into().unwrap()), ..free() });
    let asks = |timeout: &str| {
        let mut request = grpc();
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        request
    };
    assert_eq!(headers_of(&c, grpc()).await["grpc-timeout"], "250000u");
    assert_eq!(headers_of(&c, asks("10S")).await["grpc-timeout"], "250000u");
    assert_eq!(headers_of(&c, asks("10m")).await["grpc-timeout"], "10m");
    assert_eq!(headers_of(&c, asks("nonsense")).await["grpc-timeout"], "250000u");
    assert!(!headers_of(&c, get()).await.contains_key("grpc-timeout"), "to HTTP it means nothing");
    let (_fusebox, free) = fixed(free());
    assert!(!headers_of(&free, grpc()).await.contains_key("grpc-timeout"), "no deadline");
    assert_eq!(headers_of(&free, asks("10S")).await["grpc-timeout"], "10S");
    let request = fixed(CommandPolicy { timeout_ms: Some(300.try_into().unwrap()), ..self::free() });
    let twice = async || {
        let first = headers_of(&c, grpc()).await;
        sleep(ms(100)).await;
        Ok::<_, Broken>((first, headers_of(&c, grpc()).await))
    };
    let (first, second) = request.1.call(twice).await.unwrap();
    assert_eq!(first["grpc-timeout"], "250000u");
    assert_eq!(second["grpc-timeout"], "200000u", "what the request leaves");
}

/// The deadline that a caller set by hand is the call's: its end is a timeout, not a failure.
#[tokio::test(start_paused = true)]
async fn a_shorter_grpc_timeout_of_the_request_is_the_deadline() {
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: Some(250.try_into().unwrap()), ..free() });
    let mut service = c
        .http_layer()
        .layer(service_fn(|_: Request<()>| std::future::pending::<Result<Response<Steps>, Infallible>>()));
    let mut request = grpc();
    request.headers_mut().insert("grpc-timeout", "40m".parse().unwrap());
    let started = tokio::time::Instant::now();
    let answer = service.call(request).await.unwrap();
    assert_eq!(
        (&answer.headers()["grpc-status"], tokio::time::Instant::now() - started),
        (&"4".parse().unwrap(), ms(40))
    );
    assert_eq!(outcome(&fusebox), "timeout");
}

/// As for a command: tonic's own timer answers an error in the same millisecond, and the callee's
/// CANCELLED may come as early.
#[tokio::test(start_paused = true)]
async fn an_error_at_the_deadline_is_a_timeout_and_before_it_an_error() {
    let timed = || fixed(CommandPolicy { timeout_ms: Some(100.try_into().unwrap()), ..free() });
    for (millis, expected) in [(99, "failure"), (100, "timeout")] {
        let (fusebox, c) = timed();
        let mut service = c.http_layer().layer(service_fn(async |_: Request<()>| {
            sleep(ms(millis)).await;
            Err::<Response<Steps>, _>(Broken)
        }));
        let answer = service.call(grpc()).await;
        assert_eq!(outcome(&fusebox), expected);
        assert_eq!(answer.is_ok_and(|answer| answer.headers()["grpc-status"] == "4"), millis == 100);
    }
    for (status, millis, expected) in
        [("1", 99, "cancelled"), ("1", 100, "timeout"), ("14", 100, "timeout"), ("0", 100, "success")]
    {
        let (fusebox, c) = timed();
        let mut service = c.http_layer().layer(service_fn(async |_: Request<()>| {
            sleep(ms(millis)).await;
            Ok::<_, Infallible>(response(200, &[("grpc-status", status)], Steps::default()))
        }));
        service.call(grpc()).await.unwrap().collect().await.unwrap();
        assert_eq!(outcome(&fusebox), expected, "{status} after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_answered_in_the_protocol_of_the_request() {
    let forced = with(|b| {
        b.mode = BreakerMode::ForcedOpen;
        b.sleep_window_ms = 1500.try_into().unwrap();
    });
    let hung = CommandPolicy { timeout_ms: Some(10.try_into().unwrap()), ..free() };
    for (command, reason, code, http, retry_after) in [
        (forced, "open", "14", 503, Some("2")),
        (limited(1), "limit", "8", 429, None),
        (rated(1, 1), "rate", "8", 429, Some("1")),
        (hung, "timeout", "4", 504, None),
    ] {
        let (_fusebox, c) = fixed(command);
        let mut service = c.http_layer().layer(service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<Steps>, Infallible>>()
        }));
        let _holds = (reason != "open" && reason != "timeout").then(|| service.call(get()));
        let answer = service.call(grpc()).await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"]),
            (StatusCode::OK, &"application/grpc".parse().unwrap())
        );
        let said = |answer: &Response<_>, name| {
            answer.headers().get(name).map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned())
        };
        assert_eq!(said(&answer, "grpc-status").as_deref(), Some(code));
        assert_eq!(said(&answer, "fusebox-reason").as_deref(), Some(reason));
        assert_eq!(said(&answer, "retry-after").as_deref(), retry_after);
        assert!(answer.body().is_end_stream());
        let answer = service.call(get()).await.unwrap();
        assert_eq!(answer.status(), http, "{reason}");
        assert_eq!(said(&answer, "fusebox-reason").as_deref(), Some(reason));
        assert_eq!(said(&answer, "retry-after").as_deref(), retry_after);
        let body = answer.into_body();
        let promised = body.size_hint().exact();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(promised, Some(body.len() as u64));
        assert!(String::from_utf8_lossy(&body).contains(&format!("\"reason\":\"{reason}\"")));
    }
}

#[tokio::test(start_paused = true)]
async fn the_lists_of_the_policy_hold_for_responses() {
    let errors = ErrorClasses {
        ignore: [ErrorCode::Http(503), ErrorCode::Grpc(14)].into(),
        count: [ErrorCode::Http(404), ErrorCode::Grpc(5), ErrorCode::Grpc(1)].into(),
    };
    let (fusebox, c) = fixed(CommandPolicy { errors, ..with(|_| ()) });
    for _ in 0..10 {
        send(&c, get(), response(503, &[], Steps::default())).await.collect().await.unwrap();
        send(&c, grpc(), response(200, &[], Steps::of([Step::Status("14")]))).await.collect().await.unwrap();
    }
    assert_eq!((state(&fusebox), outcomes(&fusebox, "client_error")), (0, 20));
    send(&c, get(), response(404, &[], Steps::default())).await.collect().await.unwrap();
    for status in ["5", "1"] {
        let answer = response(200, &[], Steps::of([Step::Status(status)]));
        send(&c, grpc(), answer).await.collect().await.unwrap();
    }
    assert_eq!((state(&fusebox), outcomes(&fusebox, "failure")), (0, 3));
    fusebox.apply(&policy(with(|_| ())));
    send(&c, get(), response(404, &[], Steps::default())).await.collect().await.unwrap();
    assert_eq!(outcomes(&fusebox, "client_error"), 21, "the lists follow the policy");
    end(&c, Err(CLIENT)).await.unwrap_err();
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 2, "one breaker for both ways to call");
}

//! What the channel answers itself, in the caller's protocol.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use tonic::body::Body;

use super::choice::Unpicked;
use crate::discovery::known::Empty;
use crate::layer::answer::Answer;
use crate::layer::protocol::Protocol;

/// The answer to a call that goes to nobody.
pub(super) fn unpicked(protocol: Protocol, unpicked: Unpicked) -> Response<Body> {
    match unpicked {
        Unpicked::Refused(refusal) => refused(protocol, Answer::Refused(refusal)),
        Unpicked::Empty(empty) => whole(nobody(protocol, &empty)),
    }
}

/// What an endpoint that is go-micro's says of an error, as any client of gRPC reads it.
pub(super) fn plain(protocol: Protocol, headers: &mut HeaderMap) {
    #[cfg(feature = "go-micro")]
    if protocol == Protocol::Grpc {
        crate::go_micro::unpack(headers);
    }
    #[cfg(not(feature = "go-micro"))]
    let _ = (protocol, headers);
}

/// The answer of a limit or a deadline.
pub(super) fn refused(protocol: Protocol, answer: Answer) -> Response<Body> {
    whole(answer.response(protocol))
}

fn whole(answer: Response<Bytes>) -> Response<Body> {
    answer.map(|body| {
        if body.is_empty() { Body::empty() } else { Body::new(String::from_utf8_lossy(&body).into_owned()) }
    })
}

/// UNAVAILABLE, or 503, with the reason in words.
fn nobody(protocol: Protocol, empty: &Empty) -> Response<Bytes> {
    let message = empty.to_string();
    let mut response = if let Some(content_type) = protocol.content_type() {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        // It may hold a name or a text of others: what the protocol would have escaped is not worth it.
        let plain: String =
            message.chars().map(|c| if matches!(c, ' '..='~') && c != '%' { c } else { '?' }).collect();
        headers.extend(
            HeaderValue::try_from(plain)
                .ok()
                .map(|value| (http::HeaderName::from_static("grpc-message"), value)),
        );
        response
    } else {
        let json = serde_json::json!({ "error": message, "reason": "no_endpoint" }).to_string();
        let mut response = Response::new(Bytes::from(json));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    response.headers_mut().insert("fusebox-reason", HeaderValue::from_static("no_endpoint"));
    response
}

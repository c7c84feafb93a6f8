//! What the layer answers itself, in the caller's protocol.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::protocol::Protocol;
use crate::command::whole_seconds;
use crate::fuse::Refusal;

/// Why a request gets no answer of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The work was cancelled at its deadline.
    Timeout,
    /// It was not begun.
    Refused(Refusal),
}

impl Answer {
    /// Its reason in one word, its message, and its code in gRPC and HTTP.
    const fn words(self) -> (&'static str, &'static str, &'static str, StatusCode) {
        match self {
            Self::Timeout => ("timeout", "no answer within the deadline", "4", StatusCode::GATEWAY_TIMEOUT),
            Self::Refused(Refusal::Limit) => {
                ("limit", "too many requests in flight", "8", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Refused(Refusal::Rate(_)) => {
                ("rate", "too many requests a second", "8", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Refused(Refusal::Open(_)) => {
                ("open", "the circuit breaker is open", "14", StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    /// Its reason in one word.
    pub(super) const fn reason(self) -> &'static str {
        self.words().0
    }

    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Refused(Refusal::Open(after) | Refusal::Rate(after)) => Some(after),
            Self::Timeout | Self::Refused(Refusal::Limit) => None,
        }
    }

    /// gRPC: a trailers-only response with the status. HTTP: the status code and a JSON body. Both
    /// with `fusebox-reason`, and `retry-after` where that is known.
    pub(crate) fn response(self, protocol: Protocol) -> Response<Bytes> {
        let (reason, message, grpc, status) = self.words();
        let mut response = if let Some(content_type) = protocol.content_type() {
            let mut response = Response::new(Bytes::new());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert("grpc-status", HeaderValue::from_static(grpc));
            // No character here needs the percent encoding that the protocol asks for.
            headers.insert("grpc-message", HeaderValue::from_static(message));
            response
        } else {
            let json = format!(r#"{{"error":"{message}","reason":"{reason}"}}"#);
            let mut response = Response::new(Bytes::from(json));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        };
        let headers = response.headers_mut();
        headers.insert("fusebox-reason", HeaderValue::from_static(reason));
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        response
    }
}

//! What the layer answers itself, in the caller's protocol.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use super::protocol::Protocol;

/// Why a request gets no answer of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The work was cancelled at its deadline.
    Timeout,
    /// As many requests as the policy allows are in flight.
    Limit,
}

impl Answer {
    /// gRPC: a trailers-only response with the status. HTTP: the status code and a JSON body. Both
    /// with `fusebox-reason`.
    pub(crate) fn response(self, protocol: Protocol) -> Response<Bytes> {
        let (reason, message, grpc, status) = match self {
            Self::Timeout => ("timeout", "no answer within the deadline", "4", StatusCode::GATEWAY_TIMEOUT),
            Self::Limit => ("limit", "too many requests in flight", "8", StatusCode::TOO_MANY_REQUESTS),
        };
        let mut response = match protocol {
            Protocol::Grpc(content_type) => {
                let mut response = Response::new(Bytes::new());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, content_type);
                headers.insert("grpc-status", HeaderValue::from_static(grpc));
                // No character here needs the percent encoding that the protocol asks for.
                headers.insert("grpc-message", HeaderValue::from_static(message));
                response
            }
            Protocol::Http => {
                let json = format!(r#"{{"error":"{message}","reason":"{reason}"}}"#);
                let mut response = Response::new(Bytes::from(json));
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
        };
        response.headers_mut().insert("fusebox-reason", HeaderValue::from_static(reason));
        response
    }
}

//! Which protocol a request speaks, and how a response says how it went.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::classify::{Class, grpc_code};
use crate::outcome::Outcome;

/// The protocol of a request, by its content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC or gRPC-Web; the content type is the answer's too.
    Grpc(HeaderValue),
    /// Everything else.
    Http,
}

impl Protocol {
    /// The protocol of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE) {
            Some(value) if value.as_bytes().starts_with(b"application/grpc") => Self::Grpc(value.clone()),
            _ => Self::Http,
        }
    }

    /// What the head of a response says, valid if nothing later contradicts it. A gRPC response
    /// without a status yet is a failure unless its trailers say otherwise.
    pub(crate) fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        match (self, status.as_u16()) {
            (_, 500..) => Outcome::Failure,
            (_, 400..) => Outcome::ClientError,
            (Self::Grpc(_), _) => grpc_status(headers).unwrap_or(Outcome::Failure),
            (Self::Http, _) => Outcome::Success,
        }
    }

    /// What the trailers of a response say; None if nothing.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
        match self {
            Self::Grpc(_) => grpc_status(trailers),
            Self::Http => None,
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(match (code, grpc_code(code)) {
        (_, None) => Outcome::Success,
        (1, _) => Outcome::Cancelled,
        (4, _) => Outcome::Timeout,
        (_, Some(Class::Client)) => Outcome::ClientError,
        (_, Some(Class::Failure)) => Outcome::Failure,
    })
}

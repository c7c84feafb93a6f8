//! Which protocol a request speaks, and how a response says how it went.

use fusebox_policy::policy::{ErrorClasses, ErrorCode};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::classify::{Class, grpc_code};
use crate::outcome::Outcome;

/// The protocol of a request, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    /// gRPC-Web has its trailers in the body, which nobody here reads.
    GrpcWeb,
    /// The same, in base64.
    GrpcWebText,
    /// Everything else.
    Http,
}

/// What a response says of how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Not yet anything.
    Nothing,
    Success,
    Error(ErrorCode),
    /// A code that nobody knows.
    Unknown,
}

impl Protocol {
    /// The protocol of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match content_type.strip_prefix(b"application/grpc") {
            None => Self::Http,
            Some(rest) if rest.starts_with(b"-web-text") => Self::GrpcWebText,
            Some(rest) if rest.starts_with(b"-web") => Self::GrpcWeb,
            Some(_) => Self::Grpc,
        }
    }

    /// The content type of an answer without a message, whose format is then all the same; None: by the
    /// answer.
    pub(crate) const fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Grpc => Some("application/grpc"),
            Self::GrpcWeb => Some("application/grpc-web"),
            Self::GrpcWebText => Some("application/grpc-web-text"),
            Self::Http => None,
        }
    }

    /// Whether it is gRPC in some form.
    pub(crate) const fn is_grpc(self) -> bool {
        !matches!(self, Self::Http)
    }

    /// Whether it is gRPC-Web.
    pub(crate) const fn is_web(self) -> bool {
        matches!(self, Self::GrpcWeb | Self::GrpcWebText)
    }

    /// What the head of a response says, valid if nothing later contradicts it.
    pub(crate) fn head(self, status: StatusCode, headers: &HeaderMap) -> Said {
        match (self, status.as_u16()) {
            (_, 600..) => Said::Unknown,
            (_, status @ 400..) => Said::Error(ErrorCode::Http(status)),
            (Self::Http, _) => Said::Success,
            _ => grpc_status(headers),
        }
    }

    /// What the trailers of a response say.
    pub(crate) fn trailers(self, trailers: &HeaderMap) -> Said {
        if self.is_grpc() { grpc_status(trailers) } else { Said::Nothing }
    }
}

impl Said {
    /// Whether it is the end, and not a good one.
    pub(crate) const fn is_error(self) -> bool {
        matches!(self, Self::Error(_) | Self::Unknown)
    }

    /// How a response is counted that says this and nothing more. A gRPC response that ends without a
    /// status has failed. `lists`: of a policy; they come first.
    pub(crate) fn outcome(self, lists: Option<&ErrorClasses>) -> Outcome {
        let Self::Error(code) = self else {
            return if self == Self::Success { Outcome::Success } else { Outcome::Failure };
        };
        if lists.is_some_and(|lists| lists.ignore.contains(&code)) {
            return Outcome::ClientError;
        }
        if lists.is_some_and(|lists| lists.count.contains(&code)) {
            return Outcome::Failure;
        }
        match code {
            ErrorCode::Grpc(1) => Outcome::Cancelled,
            ErrorCode::Grpc(4) => Outcome::Timeout,
            ErrorCode::Grpc(code) => match grpc_code(code.into()) {
                Some(Class::Client) => Outcome::ClientError,
                _ => Outcome::Failure,
            },
            ErrorCode::Http(500..) => Outcome::Failure,
            ErrorCode::Http(_) => Outcome::ClientError,
        }
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn grpc_status(headers: &HeaderMap) -> Said {
    let Some(status) = headers.get(&GRPC_STATUS) else { return Said::Nothing };
    match status.to_str().ok().and_then(|status| status.parse().ok()) {
        Some(0) => Said::Success,
        Some(code @ 1..=16) => Said::Error(ErrorCode::Grpc(code)),
        _ => Said::Unknown,
    }
}

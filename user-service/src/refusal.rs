//! A gRPC status as an HTTP answer, so that both protocols refuse alike.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::{Code, Status};

/// The metadata key and header in which a policy's refusal names its reason.
const REASON: HeaderName = HeaderName::from_static("fusebox-reason");

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The HTTP answer that means `status`; a policy's reason and `retry-after` go with it.
pub(crate) fn answer(status: &Status) -> Response {
    let reason = status.metadata().get(REASON.as_str()).and_then(|reason| reason.to_str().ok());
    let body = Body { error: status.message(), reason };
    let mut response = (http_status(status.code()), Json(body)).into_response();
    for name in [REASON, header::RETRY_AFTER] {
        let told = status.metadata().get(name.as_str());
        if let Some(value) = told.and_then(|value| HeaderValue::from_bytes(value.as_encoded_bytes()).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// As google.rpc.Code maps them.
const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

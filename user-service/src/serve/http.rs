//! `GET /users/{name}` over HTTP.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::Status;

use super::Instance;
use super::lookup::{FALLBACK, Users};
use crate::refusal;

#[derive(Serialize)]
struct Greeting {
    msg: String,
    instance: String,
}

pub(super) async fn get_user(
    State((users, Instance(instance))): State<(Users, Instance)>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let found = match name {
        Ok(Path(name)) => users.find(name).await,
        Err(rejection) => Err(Status::invalid_argument(rejection.body_text())),
    };
    match found {
        Ok(found) => {
            let mut response =
                Json(Greeting { msg: found.greeting(), instance: instance.to_string() }).into_response();
            if found.fallback {
                response.headers_mut().insert(FALLBACK, HeaderValue::from_static("true"));
            }
            response
        }
        Err(status) => refusal::answer(&status),
    }
}

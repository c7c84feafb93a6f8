//! `GET` and `PUT /admin/behaviour`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use tonic::Status;

use super::behaviour::{Behaviour, Settings};
use crate::refusal;

pub(super) fn router(behaviour: Arc<Behaviour>) -> Router {
    Router::new().route("/admin/behaviour", get(read).put(write)).with_state(behaviour)
}

async fn read(State(behaviour): State<Arc<Behaviour>>) -> Json<Settings> {
    Json(behaviour.settings())
}

async fn write(State(behaviour): State<Arc<Behaviour>>, body: Bytes) -> Response {
    match Settings::from_json(&body) {
        Ok(settings) => {
            behaviour.set(settings);
            tracing::info!(?settings, "the behaviour changed");
            Json(settings).into_response()
        }
        Err(wrong) => refusal::answer(&Status::invalid_argument(wrong)),
    }
}

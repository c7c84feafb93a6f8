//! The client of the user store.

use axum::http::{HeaderMap, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tonic::Status;

use super::lookup::Found;
use crate::UserName;
use crate::http_client::HttpClient;

/// The user store.
#[derive(Clone, Debug)]
pub(super) struct Store(HttpClient);

#[derive(Deserialize)]
struct User {
    name: String,
}

impl Store {
    pub(super) fn new(address: &str) -> anyhow::Result<Self> {
        HttpClient::new(address).map(Self)
    }

    /// `NOT_FOUND` is the caller's affair; everything else but an answer is a failure of the store. Its
    /// cause is for the log: where the store is and what it says is no affair of the caller.
    pub(super) async fn find(&self, name: &UserName) -> Result<Found, Status> {
        let path = format!("/users/{}", utf8_percent_encode(name.as_str(), NON_ALPHANUMERIC));
        let answer = self.0.get(&path, HeaderMap::new()).await;
        let answer = answer.map_err(|error| {
            tracing::warn!(%error, "the user store gave no answer");
            Status::unavailable("the user store gave no answer")
        })?;
        match answer.status() {
            StatusCode::OK => serde_json::from_slice::<User>(answer.body())
                .map(|user| Found { name: user.name, fallback: false })
                .map_err(|error| {
                    tracing::warn!(%error, "the user store's answer is no user");
                    Status::unavailable("the user store's answer is no user")
                }),
            StatusCode::NOT_FOUND => Err(Status::not_found(format!("no user is named {name}"))),
            status => Err(Status::unavailable(format!("the user store answered {status}"))),
        }
    }
}

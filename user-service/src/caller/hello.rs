//! `GET /hello/{name}`: one call of the user service, under the policy of the command `get_user`.

use std::error::Error as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use fusebox::{CommandError, Fusebox};
use serde::Serialize;
use tonic::{Code, Request, Status};

use super::pool::Pool;
use crate::proto::GetUserRequest;
use crate::proto::user_service_client::UserServiceClient;
use crate::{listen, refusal};

/// Whom everyone is who cannot be looked up.
const DEFAULT_USER: &str = "default user";

/// Greets through the user service.
#[derive(Clone, Debug)]
pub(super) struct Greeter {
    fusebox: Fusebox,
    service: String,
    pool: Arc<Pool>,
}

#[derive(Debug, Serialize)]
struct Hello {
    msg: String,
    /// The instance that answered.
    from: Option<String>,
    fallback: bool,
    /// Why it is a fallback, in one word: `open`, `limit`, `timeout` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The same for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Greeter {
    pub(super) fn new(fusebox: Fusebox, service: String, pool: Arc<Pool>) -> Self {
        Self { fusebox, service, pool }
    }

    async fn greet(&self, name: &str) -> Result<Hello, CommandError<Status>> {
        self.fusebox
            .command("get_user")
            .call(|| self.get_user(name))
            .or_fallback(|error| Hello {
                msg: DEFAULT_USER.to_owned(),
                from: None,
                fallback: true,
                reason: Some(reason(error)),
                detail: Some(detail(error)),
            })
            .await
    }

    async fn get_user(&self, name: &str) -> Result<Hello, Status> {
        let channel = self.pool.next().ok_or_else(|| {
            Status::unavailable(format!("Consul has no passing instance of {}", self.service))
        })?;
        let mut request = Request::new(GetUserRequest { name: name.to_owned() });
        fusebox::deadline::set_grpc_timeout(request.metadata_mut().as_mut());
        let response = UserServiceClient::new(channel).get_user(request).await.map_err(told)?;
        let from = response.metadata().get(listen::INSTANCE.as_str());
        let from = from.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Hello { msg: response.into_inner().msg, from, fallback: false, reason: None, detail: None })
    }
}

/// What a caller of ours learns of a failed call. What the service says of the name is for whoever gave
/// the name; the rest is for the log: it may hold addresses, and texts of whoever is behind the service.
fn told(status: Status) -> Status {
    let code = status.code();
    if matches!(code, Code::NotFound | Code::InvalidArgument) {
        return status;
    }
    // What did not come from the service has its cause in this process.
    let cause = status.source().map(ToString::to_string);
    tracing::warn!(?code, message = status.message(), cause, "the user service failed");
    let message = match cause {
        Some(_) => "the user service gave no answer".to_owned(),
        None => format!("the user service answered {code:?}"),
    };
    Status::with_metadata(code, message, status.metadata().clone())
}

/// Whether our timer or the service's ran out first is all the same.
fn reason(error: &CommandError<Status>) -> &'static str {
    match error {
        CommandError::Failed(status) if status.code() == Code::DeadlineExceeded => "timeout",
        _ => error.reason().unwrap_or("failed"),
    }
}

fn detail(error: &CommandError<Status>) -> String {
    match error {
        CommandError::Failed(status) => status.message().to_owned(),
        refused => refused.to_string(),
    }
}

pub(super) async fn hello(
    State(greeter): State<Greeter>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    match name {
        Ok(Path(name)) => match greeter.greet(&name).await {
            Ok(hello) => Json(hello).into_response(),
            Err(error) => refusal::answer(&error.into()),
        },
        Err(rejection) => refusal::answer(&Status::invalid_argument(rejection.body_text())),
    }
}

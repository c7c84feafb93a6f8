//! `GET /hello/{name}`: one call of the user service, under the policy of the command `get_user`.

use std::error::Error as _;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use fusebox::channel::Channel;
use fusebox::discovery::Discovery;
use fusebox::{CommandError, Fusebox};
use serde::Serialize;
use tonic::{Code, Request, Status};

use crate::proto::GetUserRequest;
use crate::proto::user_service_client::UserServiceClient;
use crate::{listen, refusal};

/// The command under whose policy the user service is called.
const COMMAND: &str = "get_user";
/// Whom everyone is who cannot be looked up.
const DEFAULT_USER: &str = "default user";

/// Greets through the user service.
#[derive(Clone, Debug)]
pub(super) struct Greeter {
    fusebox: Fusebox,
    service: String,
    users: UserServiceClient<Channel>,
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
    pub(super) fn new(fusebox: Fusebox, consul: &Discovery, service: String) -> Self {
        // Looking somebody up changes nothing.
        let discover = fusebox.discover_in(consul, &service).command(COMMAND).idempotent(|_| true);
        let users = UserServiceClient::new(discover.channel());
        Self { fusebox, service, users }
    }

    async fn greet(&self, name: &str) -> Result<Hello, CommandError<Status>> {
        self.fusebox
            .command(COMMAND)
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
        let request = Request::new(GetUserRequest { name: name.to_owned() });
        let response = self.users.clone().get_user(request).await.map_err(|status| self.told(status))?;
        let from = response.metadata().get(listen::INSTANCE.as_str());
        let from = from.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Hello { msg: response.into_inner().msg, from, fallback: false, reason: None, detail: None })
    }

    /// What a caller of ours learns of a failed call. What the service says of the name is for whoever gave
    /// the name; the rest is for the log: it may hold addresses, and texts of whoever is behind the service.
    fn told(&self, status: Status) -> Status {
        let code = status.code();
        if matches!(code, Code::NotFound | Code::InvalidArgument) {
            return status;
        }
        // What did not come from the service has its cause in this process.
        let cause = status.source().map(ToString::to_string);
        tracing::warn!(?code, message = status.message(), cause, "the user service failed");
        let nobody = status.metadata().get("fusebox-reason").is_some_and(|reason| reason == "no_endpoint");
        let message = match cause {
            _ if nobody => format!("no passing instance of {} is known", self.service),
            Some(_) => "the user service gave no answer".to_owned(),
            None => format!("the user service answered {code:?}"),
        };
        Status::with_metadata(code, message, status.metadata().clone())
    }
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

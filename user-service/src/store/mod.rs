//! The user store: a dependency that can be made slow and failing while it runs.

mod admin;
mod behaviour;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::Status;

use crate::cli::{ProcessArgs, StoreArgs};
use crate::lifecycle::{self, Life};
use crate::{UserName, listen, refusal};
use behaviour::Behaviour;

/// Runs the store until a signal ends it.
pub async fn run(args: StoreArgs, process: ProcessArgs) -> anyhow::Result<()> {
    let stop = lifecycle::signals()?;
    UserStore::bind(&args).await?.run(stop, process).await
}

/// The user store on its ports.
#[derive(Debug)]
pub struct UserStore {
    public: TcpListener,
    admin: Option<TcpListener>,
}

impl UserStore {
    /// Binds the ports.
    pub async fn bind(args: &StoreArgs) -> anyhow::Result<Self> {
        let public = listen::bind(args.listen).await?;
        let admin = if args.admin { Some(listen::bind(args.admin_listen).await?) } else { None };
        Ok(Self { public, admin })
    }

    /// The addresses for users and, if it is enabled, for the admin endpoint.
    pub fn addresses(&self) -> std::io::Result<(std::net::SocketAddr, Option<std::net::SocketAddr>)> {
        let admin = self.admin.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok((self.public.local_addr()?, admin))
    }

    /// Serves until `stop` asks for the end; returns once everything in flight has finished.
    pub async fn run(self, stop: mpsc::Receiver<()>, process: ProcessArgs) -> anyhow::Result<()> {
        let life = Life::begin(std::future::ready(()), stop, process);
        let behaviour = Arc::new(Behaviour::default());
        let users = get(get_user).with_state(Arc::clone(&behaviour));
        let users = listen::health(life.clone()).route("/users/{name}", users);
        match self.admin {
            Some(admin) => {
                let servers = [(self.public, users), (admin, admin::router(behaviour))];
                listen::serve_all(servers, &life, process.grace).await;
            }
            None => listen::serve_all([(self.public, users)], &life, process.grace).await,
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct User {
    name: String,
}

/// Every valid name is a user's, except one that begins with "nobody".
async fn get_user(
    State(behaviour): State<Arc<Behaviour>>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let name = match name.map(|Path(name)| UserName::try_from(name)) {
        Ok(Ok(name)) => name,
        Ok(Err(invalid)) => return refusal::answer(&Status::invalid_argument(invalid.to_string())),
        Err(rejection) => return refusal::answer(&Status::invalid_argument(rejection.body_text())),
    };
    if behaviour.act().await.is_err() {
        return refusal::answer(&Status::unavailable("failing, as /admin/behaviour asked"));
    }
    if name.as_str().to_lowercase().starts_with("nobody") {
        return refusal::answer(&Status::not_found(format!("no user is named {name}")));
    }
    Json(User { name: name.to_string() }).into_response()
}

//! The user service: one lookup, answered over gRPC and HTTP on one port.

mod grpc;
mod http;
mod lookup;
mod store;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fusebox::Fusebox;
use fusebox::go_micro::GoMicroLayer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::server::HealthReporter;

use crate::cli::{ProcessArgs, ServeArgs};
use crate::lifecycle::{self, Life, Phase};
use crate::proto::user_service_server::UserServiceServer;
use crate::{listen, proto};
use lookup::Users;

/// Runs the user service until a signal ends it.
pub async fn run(args: ServeArgs, process: ProcessArgs) -> anyhow::Result<()> {
    let stop = lifecycle::signals()?;
    let fusebox = Fusebox::from_env().await?;
    UserService::bind(&args, fusebox).await?.run(stop, process).await
}

/// The name of this instance.
#[derive(Clone, Debug)]
struct Instance(Arc<str>);

/// The user service on its ports.
#[derive(Debug)]
pub struct UserService {
    users: Users,
    fusebox: Fusebox,
    instance: String,
    public: TcpListener,
    admin: TcpListener,
}

impl UserService {
    /// Binds the ports.
    pub async fn bind(args: &ServeArgs, fusebox: Fusebox) -> anyhow::Result<Self> {
        // So that a policy may answer with a user of its own.
        fusebox.register_descriptors(proto::DESCRIPTORS)?;
        let users = Users::new(fusebox.clone(), &args.store)?;
        let public = listen::bind(args.listen).await?;
        let admin = listen::bind(args.admin_listen).await?;
        Ok(Self { users, fusebox, instance: args.instance.clone(), public, admin })
    }

    /// The addresses for gRPC and HTTP, and for metrics.
    pub fn addresses(&self) -> std::io::Result<[std::net::SocketAddr; 2]> {
        Ok([self.public.local_addr()?, self.admin.local_addr()?])
    }

    /// Serves until `stop` asks for the end; returns once everything in flight has finished.
    pub async fn run(self, stop: mpsc::Receiver<()>, process: ProcessArgs) -> anyhow::Result<()> {
        let Self { users, fusebox, instance, public, admin } = self;
        let policy = fusebox.clone();
        let life = Life::begin(async move { policy.ready().await }, stop, process);
        let router = router(users, &fusebox, &life, &instance).await?;
        let admin_router = listen::admin(life.clone(), fusebox.clone());
        listen::serve_all([(public, router), (admin, admin_router)], &life, process.grace).await;
        fusebox.shutdown().await;
        Ok(())
    }
}

/// What is offered on the public port. Only the service itself is under policy: a probe is never refused by a limit.
async fn router(users: Users, fusebox: &Fusebox, life: &Life, instance: &str) -> anyhow::Result<Router> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_not_serving::<UserServiceServer<Users>>().await;
    tokio::spawn(report(life.clone(), reporter));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the descriptors for reflection")?;
    let grpc = UserServiceServer::new(users.clone());
    let router = Router::new()
        .route_service(&path(&grpc), grpc)
        .route("/users/{name}", get(http::get_user).with_state((users, Instance(instance.into()))))
        .layer(fusebox.server_layer())
        .route_service(&path(&health), health)
        .route_service(&path(&reflection), reflection)
        .fallback(unknown);
    // Around all of it, as it changes the path by which a router chooses.
    let go_micro = GoMicroLayer::new([UserServiceServer::<Users>::NAME]);
    listen::name_instance(Router::new().fallback_service(router).layer(go_micro), instance)
}

fn path<S: NamedService>(_: &S) -> String {
    format!("/{}/{{*method}}", S::NAME)
}

/// The gRPC health of the service follows the life of the process; that of the server, "", is always SERVING.
async fn report(life: Life, mut reporter: HealthReporter) {
    life.reached(Phase::Ready).await;
    if life.phase() == Phase::Ready {
        reporter.set_serving::<UserServiceServer<Users>>().await;
    }
    life.reached(Phase::Draining).await;
    reporter.set_not_serving::<UserServiceServer<Users>>().await;
    // Ends the streams of those who watch, which would hold their connections open.
    life.reached(Phase::Closing).await;
    for service in ["", UserServiceServer::<Users>::NAME] {
        reporter.clear_service_status(service).await;
    }
}

/// An unknown path, told in the caller's protocol.
async fn unknown(request: Request) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented(format!("{} is not served here", request.uri().path())).into_http();
    }
    (StatusCode::NOT_FOUND, "not found: try GET /users/{name}\n").into_response()
}

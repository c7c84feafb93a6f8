//! The caller: greets through the user service, which it finds in Consul by name.

mod hello;

use axum::Router;
use axum::routing::get;
use fusebox::Fusebox;
use fusebox::discovery::{ConsulConfig, Discovery};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::cli::{CallerArgs, ProcessArgs};
use crate::lifecycle::{self, Life};
use crate::listen;
use hello::Greeter;

/// Runs the caller until a signal ends it.
pub async fn run(args: CallerArgs, process: ProcessArgs) -> anyhow::Result<()> {
    let stop = lifecycle::signals()?;
    let fusebox = Fusebox::from_env().await?;
    Caller::bind(&args, fusebox).await?.run(stop, process).await
}

/// The caller on its ports.
#[derive(Debug)]
pub struct Caller {
    fusebox: Fusebox,
    consul: Discovery,
    service: String,
    instance: String,
    public: TcpListener,
    admin: TcpListener,
}

impl Caller {
    /// Binds the ports.
    pub async fn bind(args: &CallerArgs, fusebox: Fusebox) -> anyhow::Result<Self> {
        let consul = Discovery::consul(&consul(args))?;
        let public = listen::bind(args.listen).await?;
        let admin = listen::bind(args.admin_listen).await?;
        let (service, instance) = (args.service.clone(), args.instance.clone());
        Ok(Self { fusebox, consul, service, instance, public, admin })
    }

    /// The addresses for HTTP and for metrics.
    pub fn addresses(&self) -> std::io::Result<[std::net::SocketAddr; 2]> {
        Ok([self.public.local_addr()?, self.admin.local_addr()?])
    }

    /// Serves until `stop` asks for the end; returns once everything in flight has finished.
    pub async fn run(self, stop: mpsc::Receiver<()>, process: ProcessArgs) -> anyhow::Result<()> {
        let Self { fusebox, consul, service, instance, public, admin } = self;
        let policy = fusebox.clone();
        let life = Life::begin(async move { policy.ready().await }, stop, process);
        let greeter = Greeter::new(fusebox.clone(), &consul, service);
        let router = Router::new()
            .route("/hello/{name}", get(hello::hello).with_state(greeter))
            .layer(fusebox.server_layer())
            .merge(listen::health(life.clone()));
        let router = listen::name_instance(router, &instance)?;
        let admin_router = listen::admin(life.clone(), fusebox.clone());
        listen::serve_all([(public, router), (admin, admin_router)], &life, process.grace).await;
        fusebox.shutdown().await;
        Ok(())
    }
}

fn consul(args: &CallerArgs) -> ConsulConfig {
    let mut config = ConsulConfig::new(&args.consul);
    if let Some(token) = &args.consul_token {
        config = config.token(token);
    }
    if let Some(file) = &args.consul_token_file {
        config = config.token_file(file);
    }
    if let Some(file) = &args.consul_ca_file {
        config = config.ca_file(file);
    }
    config
}

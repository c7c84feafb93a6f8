//! Roles on free ports, and backends whose every answer the test gives.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use fusebox::{Fusebox, Policy};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use user_service::cli::{ProcessArgs, ServeArgs};
use user_service::proto::user_service_client::UserServiceClient;
use user_service::serve::UserService;

pub const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A long drain, so that nothing but a second stop ends it.
pub fn process() -> ProcessArgs {
    let seconds = Duration::from_secs;
    ProcessArgs { policy_wait: seconds(600), drain: seconds(600), grace: seconds(600) }
}

/// A policy whose outbound default is `command`.
pub fn outbound(command: Value) -> Policy {
    let mut policy = json!({ "inbound": { "default": {} }, "outbound": {} });
    policy["outbound"]["default"] = command;
    serde_json::from_value(policy).unwrap()
}

/// A role that runs.
pub struct Running {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    stop: mpsc::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub fn new(
        [public, admin]: [SocketAddr; 2],
        stop: mpsc::Sender<()>,
        ended: JoinHandle<anyhow::Result<()>>,
    ) -> Self {
        Self { public, admin, stop, ended }
    }

    /// As a signal does.
    pub async fn stop(&self) {
        self.stop.send(()).await.unwrap();
    }

    /// Waits for the orderly end.
    pub async fn ended(self) {
        self.ended.await.unwrap().unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }
}

pub async fn serve(policy: Policy, store: &str) -> Running {
    let instance = "user-0".to_owned();
    let args = ServeArgs { listen: ANYWHERE, admin_listen: ANYWHERE, store: store.to_owned(), instance };
    let service = UserService::bind(&args, Fusebox::fixed(policy)).await.unwrap();
    let (addresses, (stop, stopped)) = (service.addresses().unwrap(), mpsc::channel(2));
    Running::new(addresses, stop, tokio::spawn(service.run(stopped, process())))
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

pub fn client(address: SocketAddr) -> UserServiceClient<Channel> {
    UserServiceClient::new(channel(address))
}

/// A server whose every answer the test gives: the requests, each with where its answer goes.
pub async fn backend() -> (String, mpsc::Receiver<(Uri, oneshot::Sender<Response>)>) {
    type Asked = mpsc::Sender<(Uri, oneshot::Sender<Response>)>;
    async fn ask(State(asked): State<Asked>, uri: Uri) -> Response {
        let (answer, answered) = oneshot::channel();
        asked.send((uri, answer)).await.unwrap();
        answered.await.unwrap()
    }
    let (asked, asks) = mpsc::channel(16);
    (serve_router(Router::new().fallback(ask).with_state(asked)).await, asks)
}

/// A server that answers everything with `status` and `body`.
pub async fn answering(status: StatusCode, body: &'static str) -> String {
    serve_router(Router::new().fallback(async move || (status, body))).await
}

/// An address where nobody listens, and nobody will: the port stays taken.
pub fn nobody() -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ANYWHERE).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    std::mem::forget(socket);
    address
}

async fn serve_router(router: Router) -> String {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// An answer whose body may have no end.
pub async fn open(url: &str) -> (StatusCode, HeaderMap, axum::body::Body) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let (head, body) = client.get(url.parse().unwrap()).await.unwrap().into_parts();
    (head.status, head.headers, axum::body::Body::new(body))
}

/// An answer: its status, headers and JSON body (null where it is none).
pub async fn request(method: Method, url: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder().method(method).uri(url).body(Full::new(Bytes::from(body.to_owned())));
    let (head, body) = client.request(request.unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, serde_json::from_slice(&body).unwrap_or_default())
}

pub async fn get(url: &str) -> (StatusCode, HeaderMap, Value) {
    request(Method::GET, url, "").await
}

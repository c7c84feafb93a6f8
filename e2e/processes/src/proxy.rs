//! A reverse proxy before one server, HTTP/1 and HTTP/2, streams and trailers included.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::wires::{Server, Side, Wires, Write};
use crate::writes;

/// Ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Ahead {
    server: Server,
    url: String,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    wires: Wires,
}

impl Proxy {
    /// One before the server at `url`, which has a certificate of this authority if its URL asks for one.
    pub async fn before(server: Server, url: &str, authority: &str, wires: Wires) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let http2 = server == Server::Etcd;
        let connector =
            if http2 { connector.enable_http2().build() } else { connector.enable_http1().build() };
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build(connector);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ahead = Ahead { server, url: url.to_owned(), client, wires };
        let app = Router::new().fallback(forward).with_state(ahead);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, task }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(ahead): State<Ahead>, request: Request) -> Response {
    let Ahead { server, url, client, wires } = ahead;
    if wires.refuses(server) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let (mut head, mut body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let (mut write, mut sent) = (None, Bytes::new());
    if writes::may_be_write(server, &head.method, head.uri.path()) {
        let Ok(bytes) = body.collect().await else { return StatusCode::BAD_GATEWAY.into_response() };
        sent = bytes.to_bytes();
        write = writes::write(server, &head.method, head.uri.path(), &sent);
        body = Body::from(sent.clone());
    }
    wires.pass().await;
    wires.request(server, head.method.as_str(), &path);
    let write = write.map(|what| Write { server, what });
    let shot = write.as_ref().and_then(|at| Some((wires.count(at)?, at.clone())));
    if let Some((Side::Before, at)) = &shot {
        wires.shoot(at.clone()).await;
    }
    // Perhaps it was frozen here.
    wires.pass().await;
    let late = write.and_then(|write| wires.deliver(&write));
    head.uri = format!("{url}{path}").parse::<Uri>().unwrap();
    head.version = if server == Server::Etcd { Version::HTTP_2 } else { Version::HTTP_11 };
    head.headers.remove(header::HOST);
    head.headers.remove(header::CONNECTION);
    let Ok(answer) = client.request(Request::from_parts(head, body)).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (mut head, body) = answer.into_parts();
    if let Some((Side::After, at)) = shot {
        // All of it: the server is done.
        let _ = body.collect().await;
        wires.shoot(at).await;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let mut body = Body::new(body);
    if let Some(place) = late {
        let Ok(whole) = body.collect().await else { return StatusCode::BAD_GATEWAY.into_response() };
        let (trailers, bytes) = (whole.trailers().cloned(), whole.to_bytes());
        wires.answered(place, writes::outcome(server, &sent, head.status, &bytes));
        body = Body::new(Full::new(bytes).with_trailers(async move { trailers.map(Ok) }));
    }
    wires.pass().await;
    head.headers.remove(header::CONNECTION);
    head.headers.remove(header::TRANSFER_ENCODING);
    Response::from_parts(head, body)
}

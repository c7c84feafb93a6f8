//! A small HTTP/1.1 client for the store: base address, GET, a bounded body.

use std::error::Error;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// No answer has more bytes.
const LARGEST: usize = 8 << 20;

/// Everything that keeps an answer from arriving whole.
#[derive(Debug, thiserror::Error)]
#[error("{what} {uri}: {cause}")]
pub(crate) struct Unanswered {
    what: &'static str,
    uri: String,
    cause: String,
}

/// An HTTP client for one server.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl HttpClient {
    /// For the server at `base`: `http://host:port`, or `host:port` alone.
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let uri: Uri = base.parse().map_err(|error| anyhow::anyhow!("the address {base:?}: {error}"))?;
        anyhow::ensure!(uri.scheme_str() == Some("http"), "the address {base:?}: only http:// is supported");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { base, client })
    }

    /// Gets `path`, which is already encoded. Dropping the future gives the request up.
    pub(crate) async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response<Bytes>, Unanswered> {
        let uri = format!("{}{path}", self.base);
        let unanswered = |what, cause: &dyn Error| Unanswered { what, uri: uri.clone(), cause: root(cause) };
        let mut request = Request::get(&uri).body(Empty::new()).map_err(|e| unanswered("asking", &e))?;
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|e| unanswered("asking", &e))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|e| unanswered("reading the answer of", &*e))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

/// The innermost cause: hyper's own texts ("client error (Connect)") say little.
fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_scheme() {
        assert_eq!(HttpClient::new("consul:8500/").unwrap().base, "http://consul:8500");
        let refused = HttpClient::new("https://consul:8501").unwrap_err().to_string();
        assert!(refused.contains("only http://"), "{refused}");
    }

    #[tokio::test]
    async fn a_dead_server_is_named_with_the_cause() {
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let client = HttpClient::new(&taken.local_addr().unwrap().to_string()).unwrap();
        let error = client.get("/users/Ada", HeaderMap::new()).await.unwrap_err().to_string();
        assert!(error.contains("/users/Ada") && error.contains("refused"), "{error}");
    }
}

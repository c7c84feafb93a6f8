//! Requests to Consul: pooled, with a deadline, a token that may be rotated, and an authority of its own.

use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use http::response::Parts as Head;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::gate::{DEADLINE, Gate};
use crate::ports::Unavailable;

/// What RFC 3986 leaves unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The largest answer that is read.
const MAX_BODY: usize = 64 << 20;
/// How much of an error's text is shown to a person.
const MAX_SHOWN: usize = 300;
/// Consul's word for a list that holds less than there is.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

/// Where a list stands.
const INDEX: &str = "x-consul-index";
/// How long Consul may wait for a change before it answers all the same.
const WAIT: Duration = Duration::from_mins(1);

/// Where Consul is.
#[derive(Clone, Debug, Default)]
pub struct ConsulConfig {
    /// `http://` or `https://` with a port; plain HTTP where there is no scheme.
    pub address: String,
    /// Read anew for each request.
    pub token_file: Option<PathBuf>,
    /// Trusted instead of the system's authorities.
    pub ca_file: Option<PathBuf>,
}

/// The client.
pub struct Http {
    base: String,
    /// What a token needs, for a person.
    needs: String,
    token_file: Option<PathBuf>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    gate: Gate,
}

impl Http {
    /// Nothing is sent yet.
    pub fn new(config: &ConsulConfig) -> anyhow::Result<Self> {
        let base = config.address.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        // Not quoted: what stands there would be a password, and the address is in conditions and logs.
        anyhow::ensure!(
            !base.contains('@'),
            "Consul's address has a user in it: take it out; --consul-token-file says who asks"
        );
        let uri: http::Uri = base.parse().with_context(|| format!("Consul's address {base:?}"))?;
        anyhow::ensure!(
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty()),
            "Consul's address {base:?} is no http or https URL with a host"
        );
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(DEADLINE));
        // A blocking query waits for a minute: a server that vanished without a word is noticed before that.
        tcp.set_keepalive(Some(Duration::from_secs(10)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
        tcp.set_keepalive_retries(Some(3));
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let builder = match &config.ca_file {
            // Without TLS nobody needs to be trusted, and an image without authorities will do.
            None if uri.scheme_str() == Some("http") => {
                builder.with_tls_config(trusting(RootCertStore::empty()))
            }
            None => builder.with_native_roots().context("the system's certificate authorities")?,
            Some(file) => {
                let mut roots = RootCertStore::empty();
                let name = || format!("Consul's certificate authority {}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).with_context(name)? {
                    roots.add(certificate.with_context(name)?).with_context(name)?;
                }
                anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", name());
                builder.with_tls_config(trusting(roots))
            }
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(builder.https_or_http().enable_http1().wrap_connector(tcp));
        let (needs, token_file) = (String::new(), config.token_file.clone());
        Ok(Self { base, needs, token_file, client, gate: Gate::new("Consul") })
    }

    /// Tells whoever is refused what the token of this cluster's operator needs.
    #[must_use]
    pub fn of_cluster(self, cluster: &str) -> Self {
        let needs = format!(
            "the token in use needs write for node_prefix \"fusebox-{cluster}-\", session_prefix \
             \"fusebox-{cluster}-\", service_prefix \"\" and key_prefix \"fusebox/{cluster}/\""
        );
        Self { needs, ..self }
    }

    /// How often Consul was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.gate.back()
    }

    /// The answer as JSON; None where there is nothing: 404, or `null`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Unavailable> {
        let (head, body) = self.request(Method::GET, path, Bytes::new()).await?;
        if head.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.good(path, head.status.as_u16(), &body)?;
        self.whole(path, &head)?;
        parse(path, &body)
    }

    /// Half a list is no list: what is left out would look as if it did not exist.
    fn whole(&self, path: &str, head: &Head) -> Result<(), Unavailable> {
        if head.headers.get(FILTERED).is_some_and(|filtered| filtered == "true") {
            let needs = &self.needs;
            return Err(Unavailable(format!(
                "Consul left out of its answer to {path} what the ACL token may not read: {needs}"
            )));
        }
        Ok(())
    }

    /// The answer as JSON once it may be another than at `index`, or after a minute, and the index to ask for next.
    pub async fn wait_for<T: DeserializeOwned>(
        &self,
        path: &str,
        index: u64,
    ) -> Result<(u64, Option<T>), Unavailable> {
        let asked = format!("{path}?index={index}&wait={}s", WAIT.as_secs());
        // Consul adds up to a sixteenth, so that not all come back at once.
        let patience = WAIT + WAIT / 16 + DEADLINE;
        let answer = timeout(patience, self.send(Method::GET, &asked, Bytes::new())).await;
        let (head, body) = answer.map_err(|_| Unavailable(format!("Consul gave no answer to {asked}")))??;
        self.good(path, head.status.as_u16(), &body)?;
        self.whole(path, &head)?;
        let index = head.headers.get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
        Ok((index.unwrap_or_default(), parse(path, &body)?))
    }

    /// The answer's status and text.
    pub async fn put(&self, path: &str, body: String) -> Result<(u16, Bytes), Unavailable> {
        let (head, body) = self.request(Method::PUT, path, body.into()).await?;
        Ok((head.status.as_u16(), body))
    }

    /// What Consul says of a failure.
    pub fn good(&self, path: &str, status: u16, body: &[u8]) -> Result<(), Unavailable> {
        if (200..300).contains(&status) {
            return Ok(());
        }
        let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_SHOWN).collect();
        let text = if status == 403 { self.explained(&text) } else { text };
        Err(Unavailable(format!("Consul answered {status} to {path}: {text}")))
    }

    /// With what the token needs, if that is what Consul complains of.
    pub fn explained(&self, what: &str) -> String {
        let denied = ["Permission denied", "ACL not found"].iter().any(|denied| what.contains(denied));
        if denied { format!("{what}; {}", self.needs) } else { what.to_owned() }
    }

    /// Asks whether it is back, whenever callers are refused; for ever.
    pub async fn keep_asking(&self) {
        // A leader's address, if there is one.
        self.gate.keep_asking(|| self.get::<String>("/v1/status/leader")).await;
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<(Head, Bytes), Unavailable> {
        let sent = async {
            let (head, body) = self.send(method, path, body).await?;
            if is_no_answer(head.status, &body) {
                self.good(path, head.status.as_u16(), &body)?;
            }
            Ok::<_, Unavailable>((head, body))
        };
        self.gate.ask(sent, |error| Some(error.0.clone())).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(Head, Bytes), Unavailable> {
        let failed = |error: &dyn std::fmt::Display| Unavailable(format!("Consul at {}: {error}", self.base));
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file)
                .map_err(|error| failed(&format!("the token file {}: {error}", file.display())))?;
            // Without a token Consul would take us for anybody.
            if token.trim().is_empty() {
                return Err(failed(&format!("the token file {} is empty", file.display())));
            }
            request = request.header("x-consul-token", token.trim());
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&chain(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| failed(&error))?;
        Ok((head, body.to_bytes()))
    }
}

/// Does no request of anybody work? Consul answers 500 for that, as it does for much else.
fn is_no_answer(status: StatusCode, body: &[u8]) -> bool {
    let says = |what: &str| String::from_utf8_lossy(body).contains(what);
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => says("No cluster leader") || says("rpc error getting client"),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => true,
        _ => false,
    }
}

fn trusting(roots: RootCertStore) -> rustls::ClientConfig {
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// The causes of an error: hyper's own text says only that it could not connect.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// As one segment of a path.
pub fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// As a path: its slashes stay.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// Consul's JSON.
pub fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Unavailable> {
    serde_json::from_slice(body).map_err(|error| Unavailable(format!("Consul's answer to {path}: {error}")))
}

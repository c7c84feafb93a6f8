//! Questions to Consul: pooled, with a time limit, a token that may be rotated, an authority of one's own.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;

use super::config::{ConsulConfig, ConsulConfigError};
use super::pace::patience;
use crate::causes;

/// What RFC 3986 leaves unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The largest answer that is read.
const MAX_BODY: usize = 64 << 20;
/// How much of an error's text is shown to a person.
const MAX_SHOWN: usize = 300;

/// The client.
pub(super) struct Http {
    base: String,
    config: ConsulConfig,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Http {
    /// Nothing is sent yet.
    pub(super) fn new(config: &ConsulConfig) -> Result<Self, ConsulConfigError> {
        let base = config.address.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let wrong = |what: &dyn fmt::Display| ConsulConfigError(what.to_string());
        // Not quoted: what stands there would be a password.
        if base.contains('@') {
            return Err(wrong(&"Consul's address has a user in it: take it out, a token says who asks"));
        }
        let uri: Uri = base.parse().map_err(|error| wrong(&format!("Consul's address {base:?}: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(wrong(&format!("Consul's address {base:?} is no http or https URL with a host")));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        // A query waits for a minute: a server that vanished without a word is noticed before that.
        tcp.set_keepalive(Some(Duration::from_secs(10)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
        tcp.set_keepalive_retries(Some(3));
        let builder = HttpsConnectorBuilder::new();
        let builder = match &config.ca_file {
            // Without TLS nobody needs to be trusted, and an image without authorities will do.
            None if uri.scheme_str() == Some("http") => {
                builder.with_tls_config(trusting(rustls::RootCertStore::empty()))
            }
            None => builder
                .with_native_roots()
                .map_err(|error| wrong(&format!("the system's certificate authorities: {error}")))?,
            Some(file) => {
                let error = |error: &dyn fmt::Display| {
                    wrong(&format!("Consul's certificate authority {}: {error}", file.display()))
                };
                let mut roots = rustls::RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(|e| error(&e))? {
                    roots.add(certificate.map_err(|e| error(&e))?).map_err(|e| error(&e))?;
                }
                if roots.is_empty() {
                    return Err(error(&"it holds no certificate"));
                }
                builder.with_tls_config(trusting(roots))
            }
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(builder.https_or_http().enable_http1().wrap_connector(tcp));
        Ok(Self { base, config: config.clone(), client })
    }

    /// The instances of a service in Consul's JSON, and the index of the answer: once it may be another than
    /// at `index`, or after `wait`.
    pub(super) async fn instances(
        &self,
        service: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(u64, Bytes), String> {
        let name = utf8_percent_encode(service, SEGMENT);
        let wait_for = wait.as_secs();
        let mut path = format!("/v1/health/service/{name}?index={index}&wait={wait_for}s");
        if let Some(datacenter) = &self.config.datacenter {
            path.push_str("&dc=");
            path.extend(utf8_percent_encode(datacenter, SEGMENT));
        }
        let answer = timeout(patience(wait), self.get(&path)).await;
        answer.unwrap_or_else(|_| Err(format!("Consul at {} gave no answer", self.base)))
    }

    async fn get(&self, path: &str) -> Result<(u64, Bytes), String> {
        let failed = |error: &dyn fmt::Display| format!("Consul at {}: {error}", self.base);
        let mut request = Request::get(format!("{}{path}", self.base));
        if let Some(token) = self.token().map_err(|error| failed(&error))? {
            request = request.header("x-consul-token", token.trim());
        }
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&causes::text(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| failed(&error))?.to_bytes();
        let needs = "the token in use needs service:read and node:read for the service's entries";
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(MAX_SHOWN).collect();
            let needs =
                if head.status == StatusCode::FORBIDDEN { format!("; {needs}") } else { String::new() };
            return Err(failed(&format!("it answered {}: {text}{needs}", head.status.as_u16())));
        }
        // Half a list is no list: what is left out would look as if it did not exist.
        if head.headers.get("x-consul-results-filtered-by-acls").is_some_and(|filtered| filtered == "true") {
            return Err(failed(&format!("it left out what the token may not read: {needs}")));
        }
        let index = head.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        Ok((index.unwrap_or_default(), body))
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.config.token_file else { return Ok(self.config.token.clone()) };
        let token = std::fs::read_to_string(file)
            .map_err(|error| format!("the token file {}: {error}", file.display()))?;
        // Without a token Consul would take us for anybody.
        if token.trim().is_empty() {
            return Err(format!("the token file {} is empty", file.display()));
        }
        Ok(Some(token))
    }
}

fn trusting(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        for (address, said) in [
            ("http://me:hush@consul:8500", "Consul's address has a user in it"),
            ("ftp://consul", "Consul's address \"ftp://consul\" is no http or https URL with a host"),
            ("http://:8500", "Consul's address"),
        ] {
            let error = Http::new(&ConsulConfig::new(address)).unwrap_err().to_string();
            assert!(error.starts_with(said) && !error.contains("hush"), "{error}");
        }
        assert_eq!(Http::new(&ConsulConfig::new("consul:8500/")).unwrap().base, "http://consul:8500");
        let missing = Http::new(&ConsulConfig::new("https://consul:8501").ca_file("/none/ca.pem"));
        assert!(missing.unwrap_err().to_string().contains("/none/ca.pem"));
    }
}

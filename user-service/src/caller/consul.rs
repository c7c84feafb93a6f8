//! Consul's health endpoint: the passing instances of a service, by blocking queries.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::http_client::HttpClient;

/// How long Consul may hold an unchanged answer back. It adds up to a sixteenth of it.
const WAIT: Duration = Duration::from_secs(55);
/// How long we wait for an answer: longer than Consul holds it back.
const PATIENCE: Duration = Duration::from_secs(65);

/// A Consul server or agent.
#[derive(Clone, Debug)]
pub(super) struct Consul {
    http: HttpClient,
    headers: HeaderMap,
}

/// Where the answers of a blocking query stand. The default asks for an answer at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Index(u64);

impl Index {
    /// What to ask with after an answer that carried `told`: an index that went backwards (Consul was
    /// restored) or that is no positive number begins anew.
    fn after(self, told: Option<&HeaderValue>) -> Self {
        let told = told.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default();
        if told < self.0 { Self::default() } else { Self(told) }
    }
}

impl Consul {
    /// `address` as in `CONSUL_HTTP_ADDR`.
    pub(super) fn new(address: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token)?;
            token.set_sensitive(true);
            headers.insert("x-consul-token", token);
        }
        Ok(Self { http: HttpClient::new(address)?, headers })
    }

    /// The passing instances, as soon as they may differ from those that came with `index`, and the next index.
    pub(super) async fn passing(
        &self,
        service: &str,
        index: Index,
    ) -> anyhow::Result<(Vec<SocketAddr>, Index)> {
        let service = utf8_percent_encode(service, NON_ALPHANUMERIC);
        let path = format!("/v1/health/service/{service}?passing&index={}&wait={}s", index.0, WAIT.as_secs());
        let answer = tokio::time::timeout(PATIENCE, self.http.get(&path, self.headers.clone())).await??;
        anyhow::ensure!(
            answer.status().is_success(),
            "Consul answered {}: {}",
            answer.status(),
            String::from_utf8_lossy(answer.body()).trim()
        );
        Ok((instances(answer.body())?, index.after(answer.headers().get("x-consul-index"))))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
}

/// Sorted, so that equal lists are equal. An instance without an IP address of its own has its node's; one that
/// has neither, or no port, cannot be called and is left out.
fn instances(json: &[u8]) -> serde_json::Result<Vec<SocketAddr>> {
    let entries: Vec<Entry> = serde_json::from_slice(json)?;
    let address = |entry: Entry| {
        let host = if entry.service.address.is_empty() { entry.node.address } else { entry.service.address };
        let port = Some(entry.service.port).filter(|port| *port > 0)?;
        Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port))
    };
    let mut addresses = entries.into_iter().filter_map(address).collect::<Vec<_>>();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_services_else_the_nodes() {
        let json = br#"[
            {"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"b","Address":"10.1.0.2","Port":50051},"Checks":[]},
            {"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"a","Address":"","Port":50051}},
            {"Node":{"Node":"n","Address":"fd00::1"},"Service":{"ID":"c","Port":1}},
            {"Node":{"Node":"n","Address":"somewhere"},"Service":{"ID":"d","Address":"","Port":1}},
            {"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"e","Address":"","Port":0}}
        ]"#;
        let found = instances(json).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found, ["10.0.0.9:50051", "10.1.0.2:50051", "[fd00::1]:1"]);
        assert!(instances(b"rpc error").is_err());
    }

    #[test]
    fn an_index_that_went_backwards_begins_anew() {
        let told = |text| Index(40).after(Some(&HeaderValue::from_static(text)));
        assert_eq!(told("41"), Index(41));
        assert_eq!(told("40"), Index(40), "a return is no proof of a change");
        assert_eq!(told("39"), Index(0));
        assert_eq!(told("0"), Index(0));
        assert_eq!(told("-1"), Index(0));
        assert_eq!(Index(40).after(None), Index(0));
    }

    #[test]
    fn we_wait_longer_than_consul() {
        assert!(PATIENCE > WAIT + WAIT / 16);
    }
}

//! Sessions, and the node checks that depend on them, over Consul's HTTP API.
//!
//! A check of type session is registered by itself, never by a transaction: that would lose its definition. And with
//! a status, without which it would turn critical.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Consul, api, http};
use crate::deadman::port::{CHECK, Check, Node, Renewal, Session, Sessions};
use crate::model::{self, mark};
use crate::ports::{Answer, Unavailable};

/// How Consul says that a session's node is gone.
const NO_NODE: &str = "Missing node registration";
/// What stands before a session's id in the notes of its check.
const NOTES: &str = "Turns critical with the session ";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CatalogNode {
    node: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeCheck {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
    #[serde(rename = "Type")]
    kind: Option<String>,
    notes: Option<String>,
    definition: Option<Definition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    session_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Renewed {
    #[serde(rename = "TTL")]
    ttl: String,
}

impl From<&NodeCheck> for Check {
    fn from(check: &NodeCheck) -> Self {
        let name = check.definition.as_ref().and_then(|definition| definition.session_name.clone());
        let id = check.notes.as_ref().and_then(|notes| notes.strip_prefix(NOTES));
        let session = name.filter(|name| !name.is_empty()).zip(id);
        Self {
            passing: check.status == "passing",
            session: session
                .filter(|_| check.kind.as_deref() == Some("session"))
                .map(|(name, id)| Session { name, id: id.to_owned() }),
        }
    }
}

impl Consul {
    async fn shard_nodes(&self) -> Result<Vec<String>, Unavailable> {
        let path = format!("/v1/catalog/nodes?consistent&{}", self.of_cluster());
        let nodes = self.http.get::<Vec<CatalogNode>>(&path).await?.unwrap_or_default();
        let nodes = nodes.into_iter().map(|node| node.node);
        Ok(nodes.filter(|node| model::is_shard_node(&self.cluster, node)).collect())
    }

    fn of_cluster(&self) -> String {
        format!("node-meta={}", http::encode(&format!("{}:{}", mark::CLUSTER, self.cluster)))
    }

    async fn seen(&self) -> Result<Vec<Node>, Unavailable> {
        let only = http::encode(&format!("CheckID == \"{CHECK}\""));
        let path = format!("/v1/health/state/any?consistent&{}&filter={only}", self.of_cluster());
        let checks = self.http.get::<Vec<NodeCheck>>(&path).await?.unwrap_or_default();
        let nodes = self.shard_nodes().await?.into_iter();
        let check = |name: &String| checks.iter().find(|check| check.node == *name).map(Check::from);
        Ok(nodes.map(|name| Node { check: check(&name), name }).collect())
    }

    async fn create_on(&self, node: &str, name: &str, ttl: Duration) -> Result<Option<String>, Unavailable> {
        let path = "/v1/session/create";
        // Without the empty list Consul asks for a check that only an agent's node has.
        let body =
            json!({ "Node": node, "Name": name, "TTL": format!("{}s", ttl.as_secs()), "NodeChecks": [] });
        let (status, body) = self.http.put(path, body.to_string()).await?;
        if status == 500 && String::from_utf8_lossy(&body).contains(NO_NODE) {
            return Ok(None);
        }
        self.http.good(path, status, &body)?;
        http::parse::<Created>(path, &body).map(|created| Some(created.id))
    }

    async fn renewed(&self, id: &str) -> Result<Renewal, Unavailable> {
        let path = format!("/v1/session/renew/{}", http::encode(id));
        let (status, body) = self.http.put(&path, String::new()).await?;
        if status == 404 {
            return Ok(Renewal::Lost);
        }
        self.http.good(&path, status, &body)?;
        let sessions: Vec<Renewed> = http::parse(&path, &body)?;
        // A TTL that cannot be read is not the one that is wanted.
        let ttl = |session: &Renewed| session.ttl.parse::<jiff::SignedDuration>().ok()?.try_into().ok();
        Ok(sessions.first().map_or(Renewal::Lost, |session| Renewal::Kept(ttl(session).unwrap_or_default())))
    }

    /// The check of `id` on a node, under the session of this name, as passing.
    async fn register(&self, node: &str, id: &str, session: &Session) -> Result<(), Unavailable> {
        let body = json!({
            "Node": node,
            "Address": api::PLACEHOLDER,
            "NodeMeta": { (mark::CLUSTER): self.cluster },
            "SkipNodeUpdate": true,
            "Check": {
                "Node": node,
                "CheckID": id,
                "Name": "The Fusebox operator is alive",
                "Type": "session",
                "Status": "passing",
                "Notes": format!("{NOTES}{}", session.id),
                "Definition": { "SessionName": session.name },
            },
        });
        self.ask("/v1/catalog/register", body.to_string()).await
    }

    async fn ask(&self, path: &str, body: String) -> Result<(), Unavailable> {
        let (status, body) = self.http.put(path, body).await?;
        self.http.good(path, status, &body)
    }

    async fn armed(&self, node: &str, session: &Session) -> Result<bool, Unavailable> {
        // So that a node that is removed meanwhile does not come back with nothing on it but this.
        let reaped = self.reaped(node).await;
        let _held = reaped.lock().await;
        if !self.shard_nodes().await?.iter().any(|there| there == node) {
            return Ok(false);
        }
        self.register(node, CHECK, session).await?;
        Ok(true)
    }

    /// Where nothing is that anybody could miss: a session ends at once, and its check says whether it follows.
    async fn try_out(&self, nonce: &str) -> Result<bool, Unavailable> {
        let node = format!("fusebox-{}-canary", self.cluster);
        let there = self.read_node(&node).await?;
        if there.foreign {
            return Err(Unavailable(format!(
                "the Consul node {node} exists and does not belong to this cluster's Fusebox: remove it, or give this \
                 cluster another name in the operator chart's value cluster"
            )));
        }
        // The check comes with the node, a session needs the node: the check is of this try alone.
        let name = format!("{node}-{nonce}");
        self.register(&node, &name, &Session { name: name.clone(), id: String::new() }).await?;
        let found = self.followed(&node, &name).await;
        self.ask("/v1/catalog/deregister", json!({ "Node": node }).to_string()).await?;
        found?.ok_or_else(|| Unavailable(format!("the Consul node {node} went away while it was needed")))
    }

    /// None: somebody else was at work there.
    async fn followed(&self, node: &str, name: &str) -> Result<Option<bool>, Unavailable> {
        // Consul's shortest; it ends here at once.
        let ttl = Duration::from_secs(10);
        let Some(id) = self.create_on(node, name, ttl).await? else { return Ok(None) };
        self.register(node, name, &Session { name: name.to_owned(), id: id.clone() }).await?;
        self.ask(&format!("/v1/session/destroy/{}", http::encode(&id)), String::new()).await?;
        let path = format!("/v1/health/node/{}?consistent", http::encode(node));
        let checks = self.http.get::<Vec<NodeCheck>>(&path).await?.unwrap_or_default();
        let check = checks.iter().find(|check| check.check_id == name);
        Ok(check.map(|check| check.status == "critical"))
    }
}

impl Sessions for Consul {
    fn look(&self) -> Answer<'_, Result<Vec<Node>, Unavailable>> {
        Box::pin(self.seen())
    }

    fn create<'a>(
        &'a self,
        node: &'a str,
        name: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Result<Option<String>, Unavailable>> {
        Box::pin(self.create_on(node, name, ttl))
    }

    fn renew<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Renewal, Unavailable>> {
        Box::pin(self.renewed(id))
    }

    fn arm<'a>(&'a self, node: &'a str, session: &'a Session) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(self.armed(node, session))
    }

    fn disarm<'a>(&'a self, node: &'a str) -> Answer<'a, Result<(), Unavailable>> {
        let body = json!({ "Node": node, "CheckID": CHECK });
        Box::pin(async move { self.ask("/v1/catalog/deregister", body.to_string()).await })
    }

    fn supported<'a>(&'a self, nonce: &'a str) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(self.try_out(nonce))
    }
}

//! The world in memory and a server agree.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NODE, TTL, adapter, fence, register, server, until};
use crate::consul::Consul;
use crate::deadman::port::{Check, Node, Renewal, Session, Sessions};
use crate::ports::{CatalogOp, ConsulCatalog};
use crate::world::SessionWorld;

/// What the world in memory and a server must agree on.
enum Side<'a> {
    Memory(&'a SessionWorld),
    Real(&'a server::Consul, &'a Consul),
}

impl Side<'_> {
    async fn create(&self, node: &str, name: &str) -> Option<String> {
        match self {
            Self::Memory(world) => world.create(node, name, TTL),
            Self::Real(_, consul) => consul.create(node, name, TTL).await.unwrap(),
        }
    }

    async fn arm(&self, node: &str, session: &Session) -> bool {
        match self {
            Self::Memory(world) => world.arm(node, session),
            Self::Real(_, consul) => consul.arm(node, session).await.unwrap(),
        }
    }

    async fn renew(&self, id: &str) -> Renewal {
        match self {
            Self::Memory(world) => world.renew(id),
            Self::Real(_, consul) => consul.renew(id).await.unwrap(),
        }
    }

    async fn look(&self) -> Vec<Node> {
        match self {
            Self::Memory(world) => world.nodes(),
            Self::Real(_, consul) => consul.look().await.unwrap(),
        }
    }

    async fn destroy(&self, id: &str) {
        match self {
            Self::Memory(world) => world.destroy(id),
            Self::Real(server, _) => {
                server.ask("PUT", &format!("/v1/session/destroy/{id}"), &Value::Null).await;
            }
        }
    }

    async fn disarm(&self) {
        match self {
            Self::Memory(world) => world.disarm(NODE),
            Self::Real(_, consul) => consul.disarm(NODE).await.unwrap(),
        }
    }

    async fn reap(&self) {
        match self {
            Self::Memory(world) => world.reap_node(NODE),
            Self::Real(_, consul) => {
                let gone = |id: &str| CatalogOp::Deregister { id: id.into(), name: "user.service".into() };
                let ops = [gone("demo-1"), gone("demo-2"), CatalogOp::ReapNode];
                consul.transact(fence(consul).await, NODE, &ops).await.unwrap();
            }
        }
    }

    async fn seen(&self) -> Option<(bool, String)> {
        let check = self.look().await.into_iter().find(|node| node.name == NODE)?.check?;
        Some((check.passing, check.session.map(|session| session.name).unwrap_or_default()))
    }

    async fn session(&self, name: &str) -> Session {
        Session { name: name.into(), id: self.create(NODE, name).await.unwrap() }
    }

    async fn facts(&self) {
        let seen = |passing, name: &str| Some((passing, name.to_owned()));
        assert_eq!(self.look().await, [Node { name: NODE.into(), check: None }]);
        assert_eq!(self.create("fusebox-demo-9", "none").await, None, "there is no such node");
        let one = self.session("one").await;
        assert_eq!(self.seen().await, None);
        assert!(self.arm(NODE, &one).await && !self.arm("fusebox-demo-9", &one).await);
        let node =
            Node { name: NODE.into(), check: Some(Check { passing: true, session: Some(one.clone()) }) };
        assert_eq!(self.look().await, [node], "name and id come back, and no other node came");
        assert_eq!(self.renew(&one.id).await, Renewal::Kept(TTL));
        assert_eq!(self.renew("11111111-2222-3333-4444-555555555555").await, Renewal::Lost);

        let two = self.session("two").await;
        assert_eq!(self.seen().await, seen(true, "one"), "a session alone changes nothing");
        assert!(self.arm(NODE, &two).await);
        self.destroy(&one.id).await;
        assert_eq!(self.seen().await, seen(true, "two"), "the older one's end touches nothing");
        self.destroy(&two.id).await;
        assert_eq!(self.seen().await, seen(false, "two"));
        assert_eq!(self.renew(&two.id).await, Renewal::Lost);
        assert!(self.arm(NODE, &two).await);
        assert_eq!(self.seen().await, seen(true, "two"), "Consul does not ask whether the session lives");

        let three = self.session("three").await;
        assert!(self.arm(NODE, &three).await);
        assert_eq!(self.seen().await, seen(true, "three"));
        self.disarm().await;
        assert_eq!(self.seen().await, None);
        assert_eq!(self.renew(&three.id).await, Renewal::Kept(TTL));
        assert!(self.arm(NODE, &three).await);
        let start = Instant::now();
        until("the session ends", async || self.seen().await == seen(false, "three")).await;
        assert!(Instant::now() - start >= TTL, "it has its TTL at least");
        assert_eq!(self.renew(&three.id).await, Renewal::Lost);

        let four = self.session("four").await;
        assert!(self.arm(NODE, &four).await);
        self.reap().await;
        assert_eq!(self.look().await, []);
        assert_eq!(self.renew(&four.id).await, Renewal::Lost, "it went with its node");
        assert!(!self.arm(NODE, &four).await);
        assert_eq!(self.look().await, [], "nothing brings the node back");
    }
}

#[tokio::test(start_paused = true)]
async fn the_facts_of_the_world() {
    let world = SessionWorld::new(true);
    world.add_node(NODE);
    Side::Memory(&world).facts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facts_of_a_server() {
    let server = server::Consul::start(&[]).await;
    let consul = adapter(&server, None);
    assert_eq!(consul.supported("a").await, Ok(true));
    let left = server.get("/v1/catalog/nodes").await;
    assert_eq!(left.as_array().unwrap().len(), 1, "the canary is gone: {left}");
    assert_eq!(server.get("/v1/session/list").await, json!([]));
    register(&consul).await;
    Side::Real(&server, &consul).facts().await;
    assert_eq!(server.get("/v1/session/list").await, json!([]));
}

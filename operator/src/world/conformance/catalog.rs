//! Consul's catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use fusebox_policy::wire::Epoch;
use fusebox_processes::consul as server;
use serde_json::{Value, json};

use super::{At, Places, Recording};
use crate::consul::{Consul, ConsulConfig, Http};
use crate::model::{Entry, mark};
use crate::ports::{CatalogOp, ConsulCatalog, NodeView, TxnError};
use crate::world::{CatalogWorld, Crash};

const CLUSTER: &str = "demo";
/// Two of ours, and one that somebody else registered.
const NODES: [&str; 3] = ["fusebox-demo-1", "fusebox-demo-2", "theirs"];
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const NAMES: [&str; 2] = ["user.service", "other"];

#[derive(Clone, Debug)]
enum Step {
    Epoch,
    Swap(At, u64),
    Nodes,
    Node(&'static str),
    Transact(At, &'static str, Vec<CatalogOp>),
    // What others do.
    TheirNode(&'static str),
    TheirEntry(&'static str, &'static str),
    DropCheck(&'static str, &'static str),
    DropNode(&'static str),
    DropEpoch,
    Wipe,
}

/// Whom a script is played to.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Side {
    Memory(CatalogWorld),
    Real(server::Consul, Consul),
}

struct Player {
    side: Side,
    places: Places,
}

fn entry(id: &str, name: &str, port: u16, passing: Option<bool>) -> Entry {
    let meta = [(mark::CLUSTER, CLUSTER), (mark::OWNER, "u"), ("team", "")];
    Entry {
        id: id.into(),
        name: name.into(),
        address: if port == 0 { String::new() } else { "10.0.0.1".into() },
        port,
        tags: if port == 2 { vec!["v1".into(), "a".into(), "v1".into()] } else { Vec::new() },
        meta: meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        passing,
    }
}

impl Player {
    fn memory() -> Self {
        Self { side: Side::Memory(CatalogWorld::new(&Arc::new(Crash::default()))), places: Places::default() }
    }

    async fn real() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = server::Consul::start(&[]).await;
        let config = ConsulConfig { address: server.url(), ..ConsulConfig::default() };
        let consul = Consul::new(Http::new(&config).unwrap(), CLUSTER);
        Self { side: Side::Real(server, consul), places: Places::default() }
    }

    fn port(&self) -> &dyn ConsulCatalog {
        match &self.side {
            Side::Memory(world) => world,
            Side::Real(_, consul) => consul,
        }
    }

    async fn play(&mut self, step: &Step) -> String {
        match step {
            Step::Epoch => match self.port().read_epoch().await.unwrap() {
                None => "none".to_owned(),
                Some((epoch, at)) => {
                    format!("{} of {} at {}", epoch.epoch, epoch.holder, self.places.name(at))
                }
            },
            Step::Swap(at, epoch) => {
                let epoch = Epoch { epoch: *epoch, holder: "me".into(), ..Epoch::default() };
                format!("{}", self.port().swap_epoch(self.places.get(*at), &epoch).await.unwrap())
            }
            Step::Nodes => {
                let mut nodes = self.port().nodes().await.unwrap();
                nodes.sort();
                nodes.join(" ")
            }
            Step::Node(node) => told(&self.port().node(node).await.unwrap()),
            Step::Transact(at, node, ops) => {
                let Some(fence) = self.places.get(*at) else { return "no fence".to_owned() };
                match self.port().transact(fence, node, ops).await {
                    Ok(()) => "done".to_owned(),
                    Err(TxnError::Fenced) => "fenced".to_owned(),
                    Err(TxnError::Refused(all)) if all.len() > 8 => format!("refused all {}", all.len()),
                    Err(TxnError::Refused(all)) => format!("refused {all:?}"),
                    Err(TxnError::Unavailable(_)) => "unavailable".to_owned(),
                }
            }
            theirs => {
                match &mut self.side {
                    Side::Memory(world) => in_memory(world, theirs),
                    Side::Real(server, _) => on_server(server, theirs).await,
                }
                if matches!(theirs, Step::Wipe) {
                    self.places.wiped();
                }
                "done".to_owned()
            }
        }
    }

    async fn script(&mut self, name: &str, steps: &[Step], into: &mut Recording) {
        into.script(name);
        for step in steps {
            let answer = self.play(step).await;
            into.step(&shown(step), &answer);
        }
    }

    /// The next script begins with nothing there. The places of the epoch key stay unique.
    async fn clear(&mut self) {
        for node in NODES {
            self.play(&Step::DropNode(node)).await;
        }
        self.play(&Step::DropEpoch).await;
        self.places = Places::default();
        if let Side::Real(server, consul) = &mut self.side {
            // What the adapter remembers of its nodes is one process's.
            let config = ConsulConfig { address: server.url(), ..ConsulConfig::default() };
            *consul = Consul::new(Http::new(&config).unwrap(), CLUSTER);
        } else {
            self.side = Side::Memory(CatalogWorld::new(&Arc::new(Crash::default())));
        }
    }
}

fn in_memory(world: &CatalogWorld, step: &Step) {
    let mut nodes = world.nodes.try_lock().unwrap();
    match step {
        Step::TheirNode(node) => {
            let there = nodes.entry((*node).to_owned()).or_default();
            (there.exists, there.foreign) = (true, true);
        }
        Step::TheirEntry(node, id) => {
            if let Some(there) = nodes.get_mut(*node) {
                // A check of the entry before stays.
                let passing = there.entries.get(*id).and_then(|entry| entry.passing);
                let entry = Entry { meta: BTreeMap::new(), ..entry(id, "x", 9, passing) };
                there.entries.insert((*id).to_owned(), entry);
            }
        }
        Step::DropCheck(node, id) => {
            if let Some(entry) = nodes.get_mut(*node).and_then(|there| there.entries.get_mut(*id)) {
                entry.passing = None;
            }
        }
        Step::DropNode(node) => drop(nodes.remove(*node)),
        Step::DropEpoch => world.epoch.set(None),
        Step::Wipe => {
            nodes.clear();
            world.epoch.set(None);
        }
        ours => unreachable!("{ours:?}"),
    }
}

async fn on_server(server: &mut server::Consul, step: &Step) {
    let (register, deregister) = ("/v1/catalog/register", "/v1/catalog/deregister");
    match step {
        Step::TheirNode(node) => {
            server.ask("PUT", register, &json!({ "Node": node, "Address": "192.0.2.1" })).await;
        }
        Step::TheirEntry(node, id) => {
            let there = server.get(&format!("/v1/catalog/node/{node}")).await;
            if there.is_null() {
                return;
            }
            let service = json!({ "ID": id, "Service": "x", "Address": "10.0.0.1", "Port": 9 });
            let body =
                json!({ "Node": node, "SkipNodeUpdate": true, "Address": "192.0.2.1", "Service": service });
            server.ask("PUT", register, &body).await;
        }
        Step::DropCheck(node, id) => {
            server.ask("PUT", deregister, &json!({ "Node": node, "CheckID": id })).await;
        }
        Step::DropNode(node) => {
            server.ask("PUT", deregister, &json!({ "Node": node })).await;
        }
        Step::DropEpoch => {
            server.ask("DELETE", &format!("/v1/kv/fusebox/{CLUSTER}/epoch"), &Value::Null).await;
        }
        Step::Wipe => {
            server.kill().await;
            server.wipe();
            server.run().await;
        }
        ours => unreachable!("{ours:?}"),
    }
}

fn told(view: &NodeView) -> String {
    if !view.exists {
        return format!("absent {:?}", view.entries.keys().collect::<Vec<_>>());
    }
    let entries = view.entries.values().map(shown_entry).collect::<Vec<_>>().join(", ");
    format!("{} [{entries}]", if view.foreign { "foreign" } else { "ours" })
}

fn shown_entry(entry: &Entry) -> String {
    let Entry { id, name, address, port, tags, meta, passing } = entry;
    format!("{id}={name:?}@{address}:{port} {tags:?} {}m {passing:?}", meta.len())
}

fn shown(step: &Step) -> String {
    let Step::Transact(at, node, ops) = step else { return format!("{step:?}") };
    if ops.len() > 8 {
        return format!("Transact {at:?} {node} [{} times {:?}]", ops.len(), ops[0]);
    }
    let ops = ops.iter().map(|op| match op {
        CatalogOp::Register(entry) => format!("Register {}", shown_entry(entry)),
        op => format!("{op:?}").replace(" { ", "(").replace(" }", ")"),
    });
    format!("Transact {at:?} {node} [{}]", ops.collect::<Vec<_>>().join("; "))
}

fn set(id: &str, passing: bool) -> CatalogOp {
    CatalogOp::SetCheck { id: id.into(), name: NAMES[0].into(), passing }
}

fn gone(id: &str, name: &str) -> CatalogOp {
    CatalogOp::Deregister { id: id.into(), name: name.into() }
}

fn register(id: &str) -> CatalogOp {
    CatalogOp::Register(entry(id, NAMES[0], 1, Some(true)))
}

/// What the operator relies on, one after the other.
fn told_in_order() -> Vec<Step> {
    use CatalogOp::{EnsureNode, ReapNode, Register};
    use Step::{DropCheck, DropEpoch, DropNode, Epoch, Node, Nodes, Swap, TheirEntry, TheirNode, Transact};
    let [one, two, theirs] = NODES;
    let now = |ops: &[CatalogOp]| Transact(At::Newest, one, ops.to_vec());
    let many = |n: usize| (0..n).map(|n| set(&format!("many-{n}"), true)).collect::<Vec<_>>();
    vec![
        Epoch,
        Nodes,
        Node(one),
        Swap(At::Never, 1),
        Swap(At::Absent, 1),
        Swap(At::Absent, 2),
        Epoch,
        // A node, and what needs one.
        now(&[register("a")]),
        now(&[set("a", true)]),
        now(&[gone("a", NAMES[0])]),
        now(&[ReapNode]),
        now(&[]),
        now(&[EnsureNode, register("a"), register("b")]),
        Node(one),
        Nodes,
        now(&[EnsureNode]),
        now(&[set("a", false), set("b", false)]),
        now(&[set("none", false)]),
        now(&[Register(entry("c", NAMES[0], 0, None)), Register(entry("d", NAMES[1], 2, Some(false)))]),
        Node(one),
        // One bad operation, and which.
        now(&[register("e"), set("none", true), register("f"), set("nobody", true)]),
        Node(one),
        now(&[register("e"), Register(entry("f", "", 1, None)), gone("a", "")]),
        Transact(At::Never, one, vec![register("e"), gone("a", "")]),
        Transact(At::Never, one, vec![register("e"), set("none", true)]),
        Transact(At::Newest, two, vec![register("e"), set("e", false)]),
        now(&[gone("none", NAMES[0]), gone("c", NAMES[1])]),
        Node(one),
        // An id that is taken over, and a check that is gone.
        now(&[Register(entry("b", NAMES[1], 2, Some(true)))]),
        DropCheck(one, "b"),
        Node(one),
        now(&[set("b", true)]),
        Node(one),
        // More than a transaction holds.
        now(&many(127)),
        now(&many(128)),
        // The last one goes, and the node with it.
        now(&[gone("a", NAMES[0]), ReapNode]),
        Node(one),
        now(&[ReapNode, register("c")]),
        now(&[gone("b", NAMES[1]), gone("c", NAMES[0]), gone("d", NAMES[1]), register("e"), ReapNode]),
        Node(one),
        now(&[gone("e", NAMES[0]), ReapNode]),
        Node(one),
        Nodes,
        now(&[register("a")]),
        Node(one),
        now(&[gone("a", NAMES[0]), ReapNode]),
        now(&[set("a", true)]),
        // What others do.
        TheirNode(theirs),
        TheirEntry(theirs, "x"),
        Nodes,
        Node(theirs),
        Transact(At::Newest, theirs, vec![ReapNode]),
        Transact(At::Newest, theirs, vec![gone("x", "x"), ReapNode]),
        Node(theirs),
        Transact(At::Newest, theirs, vec![EnsureNode]),
        Nodes,
        now(&[EnsureNode, register("a")]),
        TheirEntry(one, "x"),
        now(&[gone("a", NAMES[0]), ReapNode]),
        Node(one),
        DropNode(one),
        now(&[register("a")]),
        TheirNode(one),
        Node(one),
        DropNode(one),
        // What we removed, and others made again.
        now(&[EnsureNode, register("a")]),
        now(&[gone("a", NAMES[0]), ReapNode]),
        TheirNode(one),
        TheirEntry(one, "x"),
        now(&[register("a")]),
        Node(one),
        DropNode(one),
        // The epoch moves.
        Swap(At::Newest, 1),
        Epoch,
        now(&[EnsureNode]),
        Swap(At::Newest, 2),
        Epoch,
        Swap(At::Before(1), 3),
        Transact(At::Before(1), one, vec![register("a")]),
        Epoch,
        DropEpoch,
        Epoch,
        now(&[register("a")]),
        Swap(At::Newest, 3),
        Swap(At::Absent, 2),
        Epoch,
        now(&[register("a")]),
        Transact(At::Before(1), one, vec![register("b")]),
        Node(one),
    ]
}

/// A server that lost everything.
fn wiped() -> Vec<Step> {
    use Step::{Epoch, Node, Nodes, Swap, Transact, Wipe};
    let now = |ops: &[CatalogOp]| Transact(At::Newest, NODES[0], ops.to_vec());
    vec![
        Swap(At::Absent, 7),
        Epoch,
        now(&[CatalogOp::EnsureNode, register("a")]),
        Wipe,
        Epoch,
        Nodes,
        Node(NODES[0]),
        Swap(At::Absent, 8),
        Epoch,
        now(&[register("a")]),
        now(&[CatalogOp::EnsureNode, register("a")]),
        Node(NODES[0]),
    ]
}

fn random(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = vec![Step::Swap(At::Absent, 1), Step::Epoch];
    for _ in 0..40 {
        steps.push(step(&mut rng));
    }
    steps.extend(NODES.map(Step::Node));
    steps
}

fn step(rng: &mut Rng) -> Step {
    let at = match rng.u8(0..20) {
        0 => At::Never,
        1 | 2 => At::Before(1),
        3 => At::Before(2),
        _ => At::Newest,
    };
    let node = |rng: &mut Rng| NODES[[0, 0, 0, 1, 1, 2][rng.usize(0..6)]];
    let id = |rng: &mut Rng| IDS[rng.usize(0..IDS.len())];
    match rng.u8(0..40) {
        0 => Step::Swap(at, rng.u64(1..4)),
        1 | 2 => Step::Epoch,
        3 => Step::Swap(At::Absent, 1),
        4 => Step::Nodes,
        5 => Step::TheirNode(node(rng)),
        6 | 7 => Step::TheirEntry(node(rng), id(rng)),
        8 => Step::DropCheck(node(rng), id(rng)),
        9 => Step::DropNode(node(rng)),
        10..14 => Step::Node(node(rng)),
        _ => {
            let node = node(rng);
            let ops = (0..rng.usize(0..5)).map(|_| op(rng)).collect();
            Step::Transact(at, node, ops)
        }
    }
}

fn op(rng: &mut Rng) -> CatalogOp {
    let id = IDS[rng.usize(0..IDS.len())];
    let name = if rng.u8(0..30) == 0 { "" } else { NAMES[rng.usize(0..2)] };
    match rng.u8(0..10) {
        0 | 1 => CatalogOp::EnsureNode,
        2..5 => {
            let passing = [None, Some(true), Some(false)][rng.usize(0..3)];
            CatalogOp::Register(entry(id, name, rng.u16(0..3), passing))
        }
        5 | 6 => set(id, rng.bool()),
        7 | 8 => gone(id, name),
        _ => CatalogOp::ReapNode,
    }
}

/// The scripts that are kept, and `random` ones, which are too many for that.
async fn play(player: &mut Player, seeds: std::ops::Range<u64>) -> Recording {
    let mut all = Recording::default();
    if seeds.start == 0 {
        player.script("told in order", &told_in_order(), &mut all).await;
        player.clear().await;
        player.script("wiped", &wiped(), &mut all).await;
        player.clear().await;
    }
    for seed in seeds {
        player.script(&format!("random {seed}"), &random(seed), &mut all).await;
        player.clear().await;
    }
    all
}

const KEPT: std::ops::Range<u64> = 0..8;

#[tokio::test]
async fn the_catalog_in_memory_answers_as_consul_once_did() {
    play(&mut Player::memory(), KEPT).await.must_be(&Recording::kept("consul"), "the world");
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_answers_as_it_once_did() {
    play(&mut Player::real().await, KEPT).await.must_be_kept("consul");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_in_memory_answers_as_consul() {
    let (mut memory, mut real) = (Player::memory(), Player::real().await);
    let seeds = fusebox_processes::seeds(8..160, 8..2000);
    let server = play(&mut real, seeds.clone()).await;
    play(&mut memory, seeds.clone()).await.must_be(&server, "the world");
    println!("Consul: {} scripts of {} steps, one answer each", seeds.end - seeds.start, server.steps());
}

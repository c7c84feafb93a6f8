//! etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use fusebox::etcd::EtcdConfig;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::{Claim, Epoch};
use fusebox_processes::etcd as server;

use super::{At, Places, Recording};
use crate::etcd::{Etcd, Reports};
use crate::ports::{Fence, Inventory, PolicyStore, StoreOp, StoreView, TxnError};
use crate::world::{Crash, StoreWorld};

const CLUSTER: &str = "demo";
const ALLOWED: &str = "service.user.";
/// Raw keys: two that may be declared and one that may not.
const RAW: [&str; 3] = ["service.user.a", "service.user.b", "service.other"];

#[derive(Clone, Debug)]
enum Step {
    Epoch,
    Swap(At, u64),
    Read(&'static str, Vec<&'static str>),
    Inventory,
    /// By a resource's UID.
    Transact(At, &'static str, Vec<Op>),
    // What others do.
    Put(String, &'static str),
    Delete(String),
    /// Another process takes over.
    Raise(u64),
    Wipe,
}

#[derive(Clone, Debug)]
enum Op {
    Of(StoreOp),
    /// As the key stood in the inventory so many looks before the last.
    DeleteAt(String, usize),
}

#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Side {
    Memory(StoreWorld),
    Real(server::Etcd, Etcd),
}

struct Player {
    side: Side,
    places: Places,
    /// Where each key stood in each inventory that had it.
    stood: BTreeMap<String, Places>,
}

impl Player {
    fn memory() -> Self {
        let world = StoreWorld::new(&Arc::new(Crash::default()), CLUSTER, &[ALLOWED]);
        Self::of(Side::Memory(world))
    }

    async fn real() -> Self {
        let server = server::Etcd::start().await;
        let etcd = adapter(&server);
        Self::of(Side::Real(server, etcd))
    }

    fn of(side: Side) -> Self {
        Self { side, places: Places::default(), stood: BTreeMap::new() }
    }

    fn port(&self) -> &dyn PolicyStore {
        match &self.side {
            Side::Memory(world) => world,
            Side::Real(_, etcd) => etcd,
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
            Step::Read(name, wanted) => {
                let wanted = wanted.iter().map(|&key| key.to_owned()).collect();
                told(&self.port().read(&of(name), wanted).await.unwrap())
            }
            Step::Inventory => {
                let found = self.port().inventory().await.unwrap();
                self.told_of(&found)
            }
            Step::Transact(at, uid, ops) => {
                let Some(fence) = self.places.get(*at) else { return "no fence".to_owned() };
                let ops: Vec<StoreOp> = ops.iter().map(|op| self.resolved(op)).collect();
                match self.port().transact(fence, &claim(uid), &ops).await {
                    Ok(()) => "done".to_owned(),
                    Err(TxnError::Fenced) => "fenced".to_owned(),
                    // Its words are for people.
                    Err(TxnError::Refused(all)) => {
                        format!("refused {:?}", all.iter().map(|(at, _)| at).collect::<Vec<_>>())
                    }
                    Err(TxnError::Unavailable(_)) => "unavailable".to_owned(),
                }
            }
            theirs => {
                match &mut self.side {
                    Side::Memory(world) => in_memory(world, theirs),
                    Side::Real(server, _) => Box::pin(on_server(server, theirs)).await,
                }
                if matches!(theirs, Step::Wipe) {
                    self.places.wiped();
                }
                "done".to_owned()
            }
        }
    }

    fn resolved(&self, op: &Op) -> StoreOp {
        match op {
            Op::Of(op) => op.clone(),
            Op::DeleteAt(key, before) => {
                let stood = self.stood.get(key).and_then(|places| places.get(At::Before(*before)));
                StoreOp::DeleteAt(key.clone(), stood.unwrap_or(Fence(1)))
            }
        }
    }

    fn told_of(&mut self, found: &Inventory) -> String {
        let documents = found.documents.iter().map(|document| {
            let stood = self.stood.entry(document.key.clone()).or_default();
            format!("{} of {} at {} {:?}", document.key, document.of, stood.name(document.at), document.holds)
        });
        let documents: Vec<_> = documents.collect();
        let claims = found.claims.iter().map(|(key, by)| format!("{key} by {}/{}", by.cluster, by.uid));
        documents.into_iter().chain(claims).collect::<Vec<_>>().join("\n    ")
    }

    async fn script(&mut self, name: &str, steps: &[Step], into: &mut Recording) {
        into.script(name);
        for step in steps {
            let answer = self.play(step).await;
            into.step(&shown(step), &answer);
        }
    }

    /// The next script begins with nothing there.
    async fn clear(&mut self) {
        (self.places, self.stood) = (Places::default(), BTreeMap::new());
        match &mut self.side {
            Side::Memory(_) => *self = Self::memory(),
            Side::Real(server, etcd) => {
                let all = etcd_client::DeleteOptions::new().with_all_keys();
                server.client().await.delete("", Some(all)).await.unwrap();
                *etcd = adapter(server);
            }
        }
    }
}

fn adapter(server: &server::Etcd) -> Etcd {
    Etcd::new(EtcdConfig::new([server.url()]), CLUSTER, vec![ALLOWED.to_owned()], Reports::default())
}

fn in_memory(world: &StoreWorld, step: &Step) {
    match step {
        Step::Put(key, value) => world.put(key, value),
        Step::Delete(key) if *key == Keys::new(CLUSTER).epoch() => world.epoch.set(None),
        Step::Delete(key) => drop(world.keys.try_lock().unwrap().remove(key)),
        Step::Raise(epoch) => world.epoch.set(Some(another(*epoch))),
        Step::Wipe => world.wipe(),
        ours => unreachable!("{ours:?}"),
    }
}

async fn on_server(server: &mut server::Etcd, step: &Step) {
    match step {
        Step::Put(key, value) => drop(server.client().await.put(key.as_str(), *value, None).await.unwrap()),
        Step::Delete(key) => drop(server.client().await.delete(key.as_str(), None).await.unwrap()),
        Step::Raise(epoch) => {
            let epoch = serde_json::to_string(&another(*epoch)).unwrap();
            server.client().await.put(Keys::new(CLUSTER).epoch(), epoch, None).await.unwrap();
        }
        Step::Wipe => {
            server.kill().await;
            server.wipe();
            server.run().await;
        }
        ours => unreachable!("{ours:?}"),
    }
}

fn another(epoch: u64) -> Epoch {
    Epoch { epoch, holder: "another".into(), ..Epoch::default() }
}

fn of(name: &str) -> Ident {
    Ident::new("shop", name)
}

fn claim(uid: &str) -> Claim {
    let cluster = if uid == "theirs" { "other" } else { CLUSTER };
    Claim { cluster: cluster.into(), uid: uid.into() }
}

fn told(view: &StoreView) -> String {
    let StoreView { policy, config, fleet, held, raw } = view;
    let raw = raw.iter().map(|(key, raw)| {
        let by = raw.claim.as_ref().map(|by| format!("{}/{}", by.cluster, by.uid));
        format!("{key}={:?} by {by:?}", raw.value)
    });
    let raw = raw.collect::<Vec<_>>().join(", ");
    format!("policy {policy:?}, config {config:?}, fleet {fleet:?}, held {held:?}, raw [{raw}]")
}

fn shown(step: &Step) -> String {
    let Step::Transact(at, uid, ops) = step else { return format!("{step:?}") };
    if ops.len() > 8 {
        return format!("Transact {at:?} {uid} [{} times {}]", ops.len(), shown_op(&ops[1]));
    }
    format!("Transact {at:?} {uid} [{}]", ops.iter().map(shown_op).collect::<Vec<_>>().join("; "))
}

fn shown_op(op: &Op) -> String {
    match op {
        Op::Of(op) => format!("{op:?}")
            .replace("Claim { cluster: \"", "\"")
            .replace("\", uid: \"", "/")
            .replace(" }", ""),
        Op::DeleteAt(..) => format!("{op:?}"),
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::Of(StoreOp::Put(key.into(), value.into()))
}

fn raw(of: impl Fn(String, String) -> StoreOp, key: &str, value: &str) -> Op {
    Op::Of(of(key.into(), value.into()))
}

fn release(key: &str) -> Op {
    Op::Of(StoreOp::Release(key.into()))
}

fn take_over(key: &str, value: &str, from: &str) -> Op {
    Op::Of(StoreOp::TakeOver(key.into(), value.into(), claim(from)))
}

fn reap(key: &str, from: &str) -> Op {
    Op::Of(StoreOp::Reap(key.into(), claim(from)))
}

/// What the operator relies on, one after the other.
fn told_in_order() -> Vec<Step> {
    use Step::{Delete, Epoch, Inventory, Put, Read, Swap, Transact};
    use StoreOp::{Claim as Take, PutRaw};
    let keys = Keys::new(CLUSTER);
    let (policy, config, list) = (keys.policy(&of("user")), keys.config(&of("user")), keys.raw(&of("user")));
    let [a, b, other] = RAW;
    let now = |uid: &'static str, ops: &[Op]| Transact(At::Newest, uid, ops.to_vec());
    let many = |n: usize| (0..n).map(|n| put(&format!("{config}-{n}"), "x")).collect::<Vec<_>>();
    let read = || Read("user", vec![a, b, other]);
    vec![
        Epoch,
        read(),
        Inventory,
        Swap(At::Never, 1),
        Swap(At::Absent, 1),
        Swap(At::Absent, 2),
        Epoch,
        now("u", &[]),
        now(
            "u",
            &[put(&policy, "1"), put(&config, "{}"), raw(Take, a, "1"), put(&list, r#"["service.user.a"]"#)],
        ),
        read(),
        Inventory,
        // A raw key is its claim's.
        now("v", &[raw(Take, a, "2")]),
        now("v", &[raw(PutRaw, a, "2")]),
        now("v", &[release(a)]),
        now("v", &[reap(a, "gone")]),
        now("v", &[take_over(a, "2", "gone")]),
        now("u", &[raw(PutRaw, a, "2"), raw(PutRaw, b, "2")]),
        now("u", &[raw(PutRaw, a, "3")]),
        now("v", &[take_over(a, "4", "u")]),
        read(),
        now("u", &[raw(PutRaw, a, "5")]),
        now("v", &[reap(a, "v")]),
        read(),
        now("v", &[release(a)]),
        Put(b.to_owned(), "theirs"),
        now("u", &[raw(Take, b, "1")]),
        Put(Keys::raw_claim(b), "?"),
        now("u", &[raw(Take, b, "1")]),
        Delete(b.to_owned()),
        now("u", &[raw(Take, b, "1")]),
        read(),
        Inventory,
        Delete(Keys::raw_claim(b)),
        now("theirs", &[raw(Take, b, "1"), raw(Take, other, "1")]),
        read(),
        Inventory,
        now("u", &[release(b)]),
        // A document that is deleted only as it was read.
        now("u", &[Op::DeleteAt(config.clone(), 0), put(&policy, "2")]),
        now("u", &[Op::DeleteAt(config.clone(), 0)]),
        Inventory,
        now("u", &[put(&policy, "2")]),
        now("u", &[Op::DeleteAt(policy.clone(), 0)]),
        Inventory,
        now("u", &[Op::DeleteAt(policy.clone(), 1)]),
        Put(policy.clone(), "2"),
        now("u", &[Op::DeleteAt(policy.clone(), 0)]),
        Inventory,
        now("u", &[Op::DeleteAt(policy.clone(), 0)]),
        Inventory,
        now("u", &[Op::Of(StoreOp::Delete(policy.clone())), Op::Of(StoreOp::Delete(policy.clone()))]),
        // A list that cannot be read.
        Put(list.clone(), "?"),
        read(),
        Inventory,
        // No key twice, and not too much.
        now("u", &[put(&policy, "1"), put(&policy, "2")]),
        now("u", &[put(&policy, "1"), Op::Of(StoreOp::Delete(policy.clone()))]),
        Transact(At::Never, "u", vec![put(&policy, "1"), put(&policy, "1")]),
        now("u", &[release(a), raw(Take, a, "1")]),
        now("u", &many(128)),
        now("u", &many(129)),
        Transact(At::Never, "u", many(129)),
        Read("user-127", Vec::new()),
        // The epoch moves.
        Swap(At::Newest, 1),
        Epoch,
        Swap(At::Before(1), 2),
        Transact(At::Before(1), "u", vec![put(&policy, "late")]),
        Transact(At::Before(1), "u", vec![raw(PutRaw, a, "late")]),
        Transact(At::Never, "u", Vec::new()),
        now("u", &[put(&policy, "3")]),
        Delete(keys.epoch()),
        Epoch,
        now("u", &[put(&policy, "late")]),
        Swap(At::Newest, 2),
        Swap(At::Absent, 2),
        Epoch,
        Transact(At::Before(1), "u", vec![put(&policy, "late")]),
        now("u", &[put(&policy, "4")]),
        read(),
    ]
}

/// An etcd that lost everything counts anew: another's epoch may stand where ours stood.
fn wiped() -> Vec<Step> {
    use Step::{Epoch, Inventory, Raise, Read, Swap, Transact, Wipe};
    let policy = Keys::new(CLUSTER).policy(&of("user"));
    vec![
        Wipe,
        Swap(At::Absent, 7),
        Epoch,
        Transact(At::Newest, "u", vec![put(&policy, "1")]),
        Wipe,
        Epoch,
        Read("user", vec![RAW[0]]),
        Inventory,
        Transact(At::Newest, "u", vec![put(&policy, "late")]),
        Raise(9),
        Transact(At::Newest, "u", vec![put(&policy, "later")]),
        Epoch,
        Swap(At::Newest, 10),
        Transact(At::Newest, "u", vec![put(&policy, "later")]),
        Epoch,
        Transact(At::Newest, "u", vec![put(&policy, "2")]),
        Read("user", Vec::new()),
    ]
}

fn random(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = vec![Step::Swap(At::Absent, 1), Step::Epoch];
    for _ in 0..40 {
        steps.push(step(&mut rng));
    }
    steps.extend([Step::Read("user", RAW.to_vec()), Step::Read("two", Vec::new()), Step::Inventory]);
    steps
}

fn document(rng: &mut Rng) -> String {
    let (keys, of) = (Keys::new(CLUSTER), of(["user", "two"][rng.usize(0..2)]));
    match rng.u8(0..4) {
        0 | 1 => keys.policy(&of),
        2 => keys.fleet(&of),
        _ => keys.raw(&of),
    }
}

fn value(rng: &mut Rng) -> &'static str {
    ["1", "2", r#"["service.user.a"]"#, r#"["service.user.a","service.user.b"]"#][rng.usize(0..4)]
}

fn step(rng: &mut Rng) -> Step {
    let at = match rng.u8(0..20) {
        0 => At::Never,
        1 | 2 => At::Before(1),
        _ => At::Newest,
    };
    let raw = |rng: &mut Rng| RAW[rng.usize(0..3)];
    match rng.u8(0..30) {
        0 => Step::Swap(at, rng.u64(1..4)),
        1 | 2 => Step::Epoch,
        3 => Step::Put(document(rng), value(rng)),
        4 => Step::Put(raw(rng).to_owned(), value(rng)),
        5 => Step::Put(
            Keys::raw_claim(raw(rng)),
            [r#"{"cluster":"demo","uid":"u"}"#, r#"{"uid":"u","cluster":"demo"}"#, "?"][rng.usize(0..3)],
        ),
        6 => Step::Delete(raw(rng).to_owned()),
        7 => Step::Delete(Keys::raw_claim(raw(rng))),
        8 | 9 => Step::Inventory,
        10 | 11 => Step::Read(["user", "two"][rng.usize(0..2)], RAW[..rng.usize(0..4)].to_vec()),
        _ => {
            let uid = ["u", "u", "v", "theirs"][rng.usize(0..4)];
            let ops = (0..rng.usize(0..4)).map(|_| op(rng)).collect();
            Step::Transact(at, uid, ops)
        }
    }
}

fn op(rng: &mut Rng) -> Op {
    let key = RAW[rng.usize(0..3)];
    let from = ["u", "v", "theirs"][rng.usize(0..3)];
    match rng.u8(0..12) {
        0 | 1 => put(&document(rng), value(rng)),
        2 => Op::Of(StoreOp::Delete(document(rng))),
        3 => Op::DeleteAt(document(rng), rng.usize(0..2)),
        4..7 => raw(StoreOp::Claim, key, value(rng)),
        7 => take_over(key, value(rng), from),
        8 | 9 => raw(StoreOp::PutRaw, key, value(rng)),
        10 => release(key),
        _ => reap(key, from),
    }
}

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
async fn the_store_in_memory_answers_as_etcd_once_did() {
    play(&mut Player::memory(), KEPT).await.must_be(&Recording::kept("etcd"), "the world");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_answers_as_it_once_did() {
    play(&mut Player::real().await, KEPT).await.must_be_kept("etcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_memory_answers_as_etcd() {
    let (mut memory, mut real) = (Player::memory(), Player::real().await);
    let seeds = fusebox_processes::seeds(8..400, 8..4000);
    let server = play(&mut real, seeds.clone()).await;
    play(&mut memory, seeds.clone()).await.must_be(&server, "the world");
    println!("etcd: {} scripts of {} steps, one answer each", seeds.end - seeds.start, server.steps());
}

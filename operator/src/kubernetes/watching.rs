//! The watches, as they run, of an API server that ends them, forgets, repeats itself and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Guarded, Stores, watch};
use crate::simulation::seeds::{on_all_cores, seeded};
use crate::world::apiserver::ApiServer;

const KIND: &str = "resilientservices";

/// A process that watches.
struct Process {
    server: ApiServer,
    stores: Stores,
    woken: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
}

impl Process {
    fn start(server: &ApiServer) -> Self {
        let (wake, woken) = mpsc::unbounded_channel();
        let stores = watch::start(&server.client(), &wake);
        Self { server: server.clone(), stores, woken }
    }

    /// What the cache has: names and generations.
    fn cached(&self) -> BTreeMap<String, i64> {
        let all = self.stores.resources.state();
        all.iter().map(|object| (object.name_any(), object.meta().generation.unwrap())).collect()
    }

    /// Who was woken, in order, and which generation the cache has of it.
    fn woken(&mut self) -> Vec<(String, Option<i64>)> {
        let cached = self.cached();
        let woken = std::iter::from_fn(|| self.woken.try_recv().ok());
        let mut all: Vec<_> = woken.map(|of| (of.name.clone(), cached.get(&of.name).copied())).collect();
        all.sort();
        all
    }

    /// Lets everything happen that is under way, and takes its first lists.
    async fn settled(&mut self) {
        sleep(Duration::from_mins(1)).await;
        assert!(self.stores.first_lists().await.is_ok());
        self.woken();
        self.server.asked();
    }
}

fn object(name: &str, generation: i64) -> Value {
    json!({
        "apiVersion": "fusebox.dev/v1alpha1", "kind": "ResilientService",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": generation },
        "spec": { "service": { "name": name } },
    })
}

fn server(names: &[&str]) -> ApiServer {
    let server = ApiServer::default();
    for name in names {
        server.apply(KIND, object(name, 1));
    }
    server
}

fn all(objects: &[(&str, i64)]) -> BTreeMap<String, i64> {
    objects.iter().map(|(name, generation)| ((*name).to_owned(), *generation)).collect()
}

fn is(name: &str, generation: impl Into<Option<i64>>) -> (String, Option<i64>) {
    (name.to_owned(), generation.into())
}

async fn moment() {
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_is_listed_anew_and_nothing_is_gone_before_the_list_is_whole() {
    let server = server(&["a", "b", "c"]);
    let mut process = Process::start(&server);
    process.settled().await;
    server.answer_lists(false);
    // All of it in a gap that the server does not remember.
    server.cut(KIND);
    server.delete(KIND, "shop", "b");
    server.apply(KIND, object("a", 2));
    server.apply(KIND, object("d", 1));
    server.compact();
    sleep(Duration::from_mins(2)).await;
    assert!(server.asked().iter().any(|asked| asked.contains(KIND) && !asked.contains("watch")), "it lists");
    assert_eq!(process.cached(), all(&[("a", 1), ("b", 1), ("c", 1)]), "as it was, until the list is there");
    assert_eq!(process.woken(), []);
    server.answer_lists(true);
    moment().await;
    assert_eq!(process.cached(), all(&[("a", 2), ("c", 1), ("d", 1)]));
    assert_eq!(process.woken(), [is("a", 2), is("b", None), is("d", 1)], "and c sleeps on");
}

#[tokio::test(start_paused = true)]
async fn half_a_list_is_none() {
    let server = server(&["a", "b", "c", "d", "e", "f", "g"]);
    let mut process = Process::start(&server);
    process.settled().await;
    let before = process.cached();
    server.pages_of(3);
    // Twice the first page is worth nothing, as what it belongs to is too old.
    server.expire_pages(2);
    server.cut(KIND);
    server.delete(KIND, "shop", "g");
    server.delete(KIND, "shop", "a");
    server.compact();
    let (mut whole, mut steps) = (None, 0);
    while whole.is_none() {
        sleep(Duration::from_millis(10)).await;
        let now = process.cached();
        assert!(now == before || now.len() == 5, "half a list is seen: {now:?}");
        whole = (now.len() == 5).then_some(now);
        steps += 1;
        assert!(steps < 10_000, "the list never comes");
    }
    let pages = server.asked().iter().filter(|asked| asked.contains("continue=")).count();
    assert_eq!(pages, 3, "two that were too old and the last");
    assert_eq!(process.woken(), [is("a", None), is("g", None)]);
}

#[tokio::test(start_paused = true)]
async fn before_its_first_list_is_whole_a_process_knows_nothing() {
    let server = server(&["a", "b", "c", "d"]);
    server.pages_of(1);
    server.answer_lists(false);
    let mut process = Process::start(&server);
    for _ in 0..3 {
        server.fail(&[500, 429, 410]);
        sleep(Duration::from_mins(1)).await;
        assert!(futures::FutureExt::now_or_never(process.stores.first_lists()).is_none());
        assert!(process.cached().is_empty() && process.woken().is_empty());
    }
    server.answer_lists(true);
    assert!(process.stores.first_lists().await.is_ok());
    assert_eq!(process.cached().len(), 4, "all of it, or nothing");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let server = server(&["a", "b"]);
    let mut process = Process::start(&server);
    process.settled().await;
    server.cut(KIND);
    server.apply(KIND, object("a", 2));
    server.delete(KIND, "shop", "b");
    server.apply(KIND, object("b", 1));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(process.cached(), all(&[("a", 2), ("b", 1)]));
    assert_eq!(process.woken(), [is("a", 2), is("b", 1), is("b", 1)], "gone, and another of its name");
    assert!(server.asked().iter().all(|asked| asked.contains("watch=")), "nothing is listed for that");
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_the_watch_on() {
    let server = server(&["a"]);
    let mut process = Process::start(&server);
    process.settled().await;
    // What happens to other kinds makes our place old.
    for n in 0..50 {
        server.apply("pods", json!({ "metadata": { "name": n.to_string(), "namespace": "shop" } }));
    }
    server.bookmark(KIND);
    moment().await;
    assert_eq!((process.woken(), process.cached()), (vec![], all(&[("a", 1)])), "it is no object");
    server.compact();
    server.cut(KIND);
    sleep(Duration::from_mins(1)).await;
    let asked = server.asked();
    let on = |asked: &String| asked.contains("watch=") && asked.contains("resourceVersion=51");
    assert!(!asked.is_empty() && asked.iter().all(on), "{asked:?}");
    server.apply(KIND, object("a", 2));
    moment().await;
    assert_eq!(process.woken(), [is("a", 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_twice_wakes_once() {
    let server = server(&["a"]);
    let mut process = Process::start(&server);
    process.settled().await;
    server.apply(KIND, object("a", 2));
    for _ in 0..10 {
        server.repeat();
    }
    moment().await;
    assert_eq!((process.woken(), process.cached()), (vec![is("a", 2)], all(&[("a", 2)])));
    server.delete(KIND, "shop", "a");
    moment().await;
    assert_eq!((process.woken(), process.cached()), (vec![is("a", None)], all(&[])));
}

/// What a resource was in the end is what the last who woke it saw; what never went is never missing.
#[test]
fn whatever_the_server_does_the_last_change_wakes() {
    let seeds = if fusebox_processes::long() { 5000 } else { 150 };
    // Each in a runtime of its own: what it watches ends with it.
    let all = on_all_cores(|seed| (seed < seeds).then(|| seeded(seed, schedule(seed))));
    let [events, wakes, lists] = [0, 1, 2].map(|of| all.iter().map(|counts| counts[of]).sum::<usize>());
    println!("{} schedules, {events} events, {lists} lists, {wakes} wakes", all.len());
}

/// How many events, wakes and lists there were.
async fn schedule(seed: u64) -> [usize; 3] {
    let (mut events, mut wakes) = (0, 0);
    let mut rng = Rng::with_seed(seed);
    let names = ["a", "b", "c", "d", "e", "f"];
    // The last two are never touched.
    let server = server(&names);
    let mut process = Process::start(&server);
    process.settled().await;
    let mut last: BTreeMap<String, Option<i64>> = BTreeMap::new();
    let mut touched: BTreeSet<String> = BTreeSet::new();
    for generation in 2..60 {
        let name = names[rng.usize(0..4)];
        match rng.u8(0..14) {
            0..4 => {
                server.apply(KIND, object(name, generation));
                touched.insert(name.to_owned());
            }
            4 | 5 => {
                if server.objects(KIND).iter().any(|there| there["metadata"]["name"] == name) {
                    touched.insert(name.to_owned());
                }
                server.delete(KIND, "shop", name);
            }
            6 => server.cut([KIND, KIND, "services", "endpointslices"][rng.usize(0..4)]),
            7 => server.compact(),
            8 => server.bookmark(KIND),
            9 => server.repeat(),
            10 => server.fail(&[[500, 410, 429, 503][rng.usize(0..4)]]),
            11 => {
                server.pages_of(rng.usize(1..4));
                server.expire_pages(rng.usize(0..3));
            }
            12 => server.answer_lists(rng.bool()),
            _ => sleep(Duration::from_millis(rng.u64(0..40_000))).await,
        }
        events += 1;
        if rng.bool() {
            sleep(Duration::from_millis(rng.u64(0..50))).await;
        }
        let cached = process.cached();
        assert!(["e", "f"].iter().all(|name| cached.get(*name) == Some(&1)), "{seed}: {cached:?}");
        for (name, seen) in process.woken() {
            wakes += 1;
            last.insert(name, seen);
        }
    }
    server.answer_lists(true);
    sleep(Duration::from_mins(10)).await;
    for (name, seen) in process.woken() {
        wakes += 1;
        last.insert(name, seen);
    }
    let there: BTreeMap<String, i64> = (server.objects(KIND).iter())
        .map(|there| {
            let (name, generation) = (&there["metadata"]["name"], &there["metadata"]["generation"]);
            (name.as_str().unwrap().to_owned(), generation.as_i64().unwrap())
        })
        .collect();
    assert_eq!(process.cached(), there, "{seed}");
    for name in &touched {
        // One that came and went between two lists was never seen, and wakes nobody.
        if let Some(seen) = last.get(name) {
            assert_eq!(*seen, there.get(name).copied(), "{seed}: {name}");
        } else {
            assert_eq!(there.get(name), Some(&1), "{seed}: {name} changed and nobody was woken");
        }
    }
    let asked = server.asked();
    let lists = asked.iter().filter(|asked| asked.contains(KIND) && !asked.contains("watch")).count();
    assert_eq!(server.watchers(), 3, "{seed}");
    [events, wakes, lists]
}

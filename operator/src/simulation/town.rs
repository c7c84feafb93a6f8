//! One or two Kubernetes clusters on one Consul and one etcd, two replicas of the operator in each, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::damage::Backup;
use super::foreign::Foreign;
use super::place::{Place, key_prefix};
use super::process::{Process, Start, Ways};
use super::view::Sight;
use crate::world::{CatalogWorld, StoreWorld, Weather};

pub const REPLICAS: usize = 2;
/// How often one looks around.
const LOOK: Duration = Duration::from_millis(250);
/// A process that reached Consul for so long has kept every dead man: the TTL but for what a session may be old.
const KEPT: Duration = Duration::from_secs(50);
/// How many of a thousand chances to stand still at a bad moment a process takes.
const MISHAPS: u16 = 12;

pub fn fair() -> Weather {
    Weather { latency: Duration::from_millis(30), ..Weather::default() }
}

/// What is to happen later.
pub enum Later {
    Remove(usize, Ident, String),
    Ready(usize, Ident, String, bool),
    Service(usize, Ident),
    Recreate(usize, Ident),
    Mend(usize, usize),
    End(usize, usize),
}

/// Bad weather on some ways.
pub struct Bad {
    /// Of one replica, or of all.
    pub of: Option<(usize, usize)>,
    pub way: usize,
    pub weather: Weather,
    pub until: Instant,
}

pub struct Slot {
    pub process: Process,
    rate: f64,
    due: Option<Instant>,
    reaches_consul: Option<Instant>,
}

pub struct Town {
    pub places: Vec<Arc<Place>>,
    pub slots: Vec<Vec<Slot>>,
    pub bad: Vec<Bad>,
    pub later: BTreeMap<(Instant, u64), Later>,
    pub order: u64,
    pub happened: BTreeMap<&'static str, u64>,
    pub backups: [Option<Backup>; 2],
    pub instances: u64,
    pub uids: u64,
    starts: u64,
    mishaps: u16,
    /// Are orphans removed however many they are, in each place?
    pub free: Vec<bool>,
    turned: Vec<usize>,
}

/// The resource that nobody ever edits, and its Service.
pub fn steady() -> Ident {
    Ident::new("shop", "steady")
}

impl Town {
    pub fn new(clusters: usize) -> Self {
        let catalog = CatalogWorld::new(&Arc::default());
        let store = StoreWorld::new(&Arc::default(), "one", &[&key_prefix("one")]);
        let second = (catalog.of_another_cluster(), store.of_another_cluster("two", &[&key_prefix("two")]));
        let mut places = vec![Arc::new(Place::new("one", catalog, store))];
        if clusters > 1 {
            places.push(Arc::new(Place::new("two", second.0, second.1)));
        }
        let mut town = Self {
            slots: places.iter().map(|_| Vec::new()).collect(),
            free: vec![false; places.len()],
            turned: vec![0; places.len()],
            places,
            bad: Vec::new(),
            later: BTreeMap::new(),
            order: 0,
            happened: BTreeMap::new(),
            backups: [None, None],
            instances: 0,
            uids: 0,
            starts: 0,
            mishaps: MISHAPS,
        };
        for at in 0..town.places.len() {
            town.found(at);
            let foreign = Foreign::of(&town.places[at], &steady());
            foreign.put(&town.places[at]);
            town.places[at].judge.try_lock().unwrap().foreign = foreign;
            for n in 0..REPLICAS {
                let rate = 0.82 + 0.4 * fastrand::f64();
                let process = town.start(at, n, rate);
                town.slots[at].push(Slot { process, rate, due: None, reaches_consul: None });
            }
        }
        town
    }

    /// Another process in a replica's place.
    fn start(&mut self, at: usize, n: usize, rate: f64) -> Process {
        self.starts += 1;
        let free = if self.free[at] { "/free" } else { "" };
        let start = Start {
            me: format!("{}/{n}/{}{free}", self.places[at].name, self.starts),
            rate,
            mishaps: self.mishaps,
            remove_all_orphans: self.free[at],
            old: if fastrand::u8(0..4) == 0 { fastrand::usize(0..30) } else { 0 },
        };
        let ways: Ways = std::array::from_fn(|way| watch::Sender::new(self.weather(at, n, way)));
        Process::start(&self.places[at], ways, start)
    }

    /// How a replica's way is now.
    fn weather(&self, at: usize, n: usize, way: usize) -> Weather {
        let concerns = |bad: &&Bad| bad.way == way && bad.of.is_none_or(|of| of == (at, n));
        self.bad.iter().filter(concerns).fold(fair(), |sum, bad| Weather {
            latency: sum.latency.max(bad.weather.latency),
            lost: sum.lost.max(bad.weather.lost),
            slow: sum.slow.max(bad.weather.slow),
            down: sum.down || bad.weather.down,
        })
    }

    /// The weather changed.
    pub fn forecast(&mut self) {
        for at in 0..self.places.len() {
            for n in 0..REPLICAS {
                for way in 0..3 {
                    let now = self.weather(at, n, way);
                    let process = &self.slots[at][n].process;
                    let was_down = process.ways[way].borrow().down;
                    process.ways[way].send_replace(now);
                    if way == 0 && was_down && !now.down {
                        self.anew(at, n);
                    }
                }
            }
        }
    }

    /// A replica's watches begin anew.
    fn anew(&self, at: usize, n: usize) {
        self.places[at].publish();
        let wake = self.slots[at][n].process.wake.clone();
        for of in self.places[at].cluster.now().resources.into_keys() {
            let _ = wake.send(of);
        }
    }

    pub fn after(&mut self, wait: Duration, later: Later) {
        self.order += 1;
        self.later.insert((Instant::now() + wait, self.order), later);
    }

    pub async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(LOOK).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let later = entry.remove();
            self.catch_up(later);
        }
        if self.bad.iter().any(|bad| bad.until <= now) {
            self.bad.retain(|bad| bad.until > now);
            self.forecast();
        }
        for at in 0..self.places.len() {
            if fastrand::u8(0..8) == 0 {
                collect(&self.places[at]);
            }
            for n in 0..REPLICAS {
                self.restart(at, n);
                let slot = &mut self.slots[at][n];
                slot.reaches_consul =
                    slot.process.reaches_consul().then(|| slot.reaches_consul.unwrap_or(now));
            }
            self.dead_men(at);
        }
    }

    fn restart(&mut self, at: usize, n: usize) {
        if !self.slots[at][n].process.running.is_finished() {
            return;
        }
        let wait = Duration::from_millis(fastrand::u64(50..4000));
        let now = Instant::now();
        if now >= *self.slots[at][n].due.get_or_insert_with(|| now + wait) {
            let process = self.start(at, n, self.slots[at][n].rate);
            let slot = &mut self.slots[at][n];
            (slot.due, slot.reaches_consul, slot.process) = (None, None, process);
        }
    }

    /// No check of a dead man turns critical that a process looks after.
    fn dead_men(&mut self, at: usize) {
        let place = &self.places[at];
        let turned = place.sessions.turned();
        for turned in &turned[self.turned[at]..] {
            *self.happened.entry("a dead man's check critical").or_default() += 1;
            let kept = |slot: &Slot| slot.reaches_consul.is_some_and(|since| since + KEPT <= turned.at);
            if let Some(slot) = self.slots[at].iter().find(|slot| kept(slot)) {
                let wrong = format!("{turned:?} though {} looked after it", slot.process.me);
                place.judge.try_lock().unwrap().wrong.push(wrong);
            }
        }
        self.turned[at] = turned.len();
    }

    fn catch_up(&mut self, later: Later) {
        match later {
            Later::Remove(at, of, instance) => {
                self.endpoints(at, &of, |all| all.retain(|endpoint| endpoint.instance != instance));
            }
            Later::Ready(at, of, instance, ready) => self.endpoints(at, &of, |all| {
                all.iter_mut().filter(|e| e.instance == instance).for_each(|e| e.ready = ready);
            }),
            Later::Service(at, of) => self.service(at, &of),
            Later::Recreate(at, of) => self.declare(at, &of),
            Later::End(at, n) => _ = self.slots[at][n].process.stop.send_replace(true),
            Later::Mend(at, n) => {
                self.slots[at][n].process.sight.send_replace(Sight::default());
                self.anew(at, n);
            }
        }
    }

    /// Ends all trouble.
    pub fn heal(&mut self) {
        self.bad.clear();
        self.forecast();
        self.mishaps = 0;
        for at in 0..self.places.len() {
            for n in 0..REPLICAS {
                self.slots[at][n].process.ice.mishaps.store(0, SeqCst);
                self.slots[at][n].process.sight.send_replace(Sight::default());
                self.anew(at, n);
            }
        }
    }

    /// Another day begins.
    pub fn morning(&mut self) {
        self.mishaps = MISHAPS;
        for at in 0..self.places.len() {
            for slot in &self.slots[at] {
                slot.process.ice.mishaps.store(MISHAPS, SeqCst);
            }
            self.free[at] = false;
        }
    }

    /// Ends all processes.
    pub fn end(&self) {
        self.slots.iter().flatten().for_each(|slot| slot.process.running.abort());
    }

    pub fn trace(&self) -> Vec<u64> {
        self.places.iter().map(|place| place.judge.try_lock().unwrap().trace()).collect()
    }
}

/// Kubernetes removes the routes of resources that are gone.
fn collect(place: &Place) {
    let live: BTreeSet<String> =
        place.cluster.now().resources.values().filter_map(ResourceExt::uid).collect();
    let mut objects = place.routes.objects.try_lock().unwrap();
    objects.retain(|_, view| view.owner.as_ref().is_none_or(|owner| live.contains(owner)));
}

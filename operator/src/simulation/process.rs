//! One process of the operator: the wiring of `app.rs` over wires and worlds, in one task that can stand still.
//!
//! kube's controller is replaced by [`super::queue`], the watches by [`super::view`]; all else is the product.

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::place::Place;
use super::queue;
use super::view::{Kube, Sight, View};
use super::wired::{Consul, Etcd, Link, Routes};
use crate::app::RETURNS;
use crate::deadman::Keeper;
use crate::epoch::{Fenced, Signals};
use crate::gate::Gate;
use crate::leader::{Clock, Elector, End, Leadership};
use crate::metrics::Metrics;
use crate::ports::{ConsulCatalog, PolicyStore};
use crate::reconcile::Context;
use crate::reconcile::deletions::Deletions;
use crate::reconcile::memory::Memory;
use crate::sweep;
use crate::takeover;
use crate::world::{Ice, LeaseClient, Weather, Wire};

/// How long a dead man's session lives.
pub const TTL: Duration = Duration::from_mins(1);
/// As in `supervise`.
const RELEASE: Duration = Duration::from_secs(4);

/// The ways of a process: to the API server, Consul and etcd.
pub type Ways = [watch::Sender<Weather>; 3];

/// What a process starts with.
pub struct Start {
    pub me: String,
    /// How fast its clock goes.
    pub rate: f64,
    pub mishaps: u16,
    pub remove_all_orphans: bool,
    /// By how many changes its first lists are old.
    pub old: usize,
}

pub struct Process {
    pub me: String,
    pub ice: Ice,
    pub ways: Ways,
    pub sight: watch::Sender<Sight>,
    pub leadership: Arc<Leadership>,
    pub stop: watch::Sender<bool>,
    pub wake: mpsc::UnboundedSender<Ident>,
    pub running: JoinHandle<()>,
}

impl Process {
    pub fn start(place: &Arc<Place>, ways: Ways, start: Start) -> Self {
        let ice = Ice::with_mishaps(start.mishaps);
        let leadership = Arc::new(Leadership::new(Clock::at_rate(start.rate)));
        let (stop, stopping) = watch::channel(false);
        let sight = watch::Sender::new(Sight::default());
        let (wake, woken) = mpsc::unbounded_channel();
        let me = start.me.clone();
        let parts = Parts {
            place: place.clone(),
            ways: ways.clone(),
            ice: ice.clone(),
            leadership: leadership.clone(),
            sight: sight.subscribe(),
            wake: wake.clone(),
        };
        let running = tokio::spawn(ice.around(live(parts, start, woken, stopping)));
        Self { me, ice, ways, sight, leadership, stop, wake, running }
    }

    /// Does it believe to lead, and can it act on it?
    pub fn believes(&self) -> bool {
        !self.running.is_finished() && !self.ice.is_frozen() && self.leadership.holds()
    }

    /// Can it talk to Consul?
    pub fn reaches_consul(&self) -> bool {
        let way = self.ways[1].borrow();
        !self.running.is_finished() && !self.ice.is_frozen() && !way.down && way.lost == 0 && way.slow == 0
    }
}

struct Parts {
    place: Arc<Place>,
    ways: Ways,
    ice: Ice,
    leadership: Arc<Leadership>,
    sight: watch::Receiver<Sight>,
    wake: mpsc::UnboundedSender<Ident>,
}

/// One for each way.
fn gates() -> [Arc<Gate>; 3] {
    [Gate::restless("the Kubernetes API"), Gate::new("Consul"), Gate::new("etcd")].map(Arc::new)
}

/// Has everything looked at when a store turns out to be restored.
async fn resynced(signals: &Signals, view: &View) {
    loop {
        signals.resync.notified().await;
        view.wake_all();
    }
}

/// Notices that a backend is back, and has everything looked at.
async fn returned(link: Link, view: &View) {
    let mut back = link.gate.back();
    let wake = async {
        while back.changed().await.is_ok() {
            view.wake_all();
            sleep(RETURNS).await;
        }
    };
    tokio::join!(link.keep_asking(), wake);
}

async fn live(
    parts: Parts,
    start: Start,
    mut woken: mpsc::UnboundedReceiver<Ident>,
    stop: watch::Receiver<bool>,
) {
    let Parts { place, ways, ice, leadership, sight, wake } = parts;
    let me = start.me;
    let wire = |way: usize| Wire { weather: ways[way].clone(), ice: ice.clone() };
    let gates = gates();
    let link =
        |way: usize| Link { place: place.clone(), wire: wire(way), me: me.clone(), gate: gates[way].clone() };
    let metrics: Arc<Metrics> = Arc::default();
    let lease = LeaseClient { world: place.lease.clone(), wire: wire(0) };
    let elector = Arc::new(Elector::new(lease, &me, leadership.clone(), metrics.clone()));
    let signals = Arc::new(Signals::new(elector.clone()));
    let _ = signals.home.set(format!("home of {}", place.name));
    let view = Arc::new(View::new(wake));
    let (tell, leads) = watch::channel(false);
    let keeper = Keeper::new(Arc::new(Consul(link(1))), metrics.dead_man.clone(), TTL);
    let consul: Arc<dyn ConsulCatalog> = Arc::new(Consul(link(1)));
    let etcd: Arc<dyn PolicyStore> = Arc::new(Etcd(link(2)));
    let context = Context {
        settings: place.settings(start.remove_all_orphans),
        cluster: Arc::new(Kube { view: view.clone(), link: link(0) }),
        consul: Fenced::new(consul, "Consul", &me, signals.clone()),
        etcd: Fenced::new(etcd, "etcd", &me, signals.clone()),
        routes: Arc::new(Routes(link(0))),
        metrics: metrics.clone(),
        memory: Memory::default(),
        deletions: Deletions::default(),
    };
    let [consul_back, etcd_back] = [1, 2].map(|way| returned(link(way), &view));
    let background = async {
        tokio::join!(
            consul_back,
            etcd_back,
            leadership.follow(tell),
            keeper.run(leads),
            view.watch(&place, start.old, sight, ways[0].clone()),
            resynced(&signals, &view),
        )
    };
    let (resign, told) = watch::channel(false);
    let election = elector.run(told);
    let mut deposed = signals.deposed.subscribe();
    let mut stopping = stop.clone();
    let work = async {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return End::Drained,
            () = async {
                view.first_lists().await;
                leadership.known().await;
                leadership.leads().await;
            } => {}
            // A standby lets go of what would be worked on.
            () = async {
                while woken.recv().await.is_some() {}
                std::future::pending::<()>().await;
            } => {}
        }
        let taken = tokio::join!(takeover::take(&context.consul), takeover::take(&context.etcd));
        view.wake_all();
        let late = async {
            tokio::join!(
                async {
                    if !taken.0 {
                        takeover::keep_taking(&context.consul).await;
                    }
                },
                async {
                    if !taken.1 {
                        takeover::keep_taking(&context.etcd).await;
                    }
                },
                sweep::run(&context, stop.clone()),
            );
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            end = queue::work(&context, &view, &place, &mut woken, stop.clone()) => end,
            () = late => End::CutOff,
        }
    };
    let (mut election, mut background) = (std::pin::pin!(election), std::pin::pin!(background));
    let end = tokio::select! {
        biased;
        _ = &mut election => return,
        _ = deposed.wait_for(Option::is_some) => return,
        _ = &mut background => return,
        end = work => end,
    };
    if end == End::Drained {
        resign.send_replace(true);
        tokio::select! {
            biased;
            _ = timeout(RELEASE, election) => {}
            _ = background => {}
        }
    }
}

//! Replicas of an operator with a Lease, a store and bad weather. Each runs the real elector and the real fence;
//! its effects are writes to the store, several at once.

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::wire::Epoch;
use futures::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Clock, Elector, Leadership, RETRY_PERIOD};
use crate::epoch::{Fenced, Signals};
use crate::ports::{Answer, EpochStore, Fence, TxnError, Unavailable};
use crate::reconcile::apply::fence_and;
use crate::world::{EpochWorld, Ice, LeaseClient, LeaseWorld, Weather, Wire};

/// How long a request to the store may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many effects of a replica are in flight at once.
const EFFECTS: usize = 32;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Writes that took place.
    pub accepted: u64,
    /// Writes that reached the store after a later leader had raised the epoch.
    pub stale: u64,
    /// Those of them that took place: must be none.
    pub stale_accepted: u64,
    /// Epochs raised after a later leader had raised it.
    pub stale_raised: u64,
    /// Moments at which two believed to lead: must be none.
    pub two_leaders: u64,
    /// How many leaders there were.
    pub leaders: u64,
}

/// Everything that lives longer than a process.
pub struct Town {
    pub lease: Arc<LeaseWorld>,
    pub store: Arc<EpochWorld>,
    pub to_lease: watch::Sender<Weather>,
    pub to_store: watch::Sender<Weather>,
    pub count: Mutex<Count>,
    /// The latest leader, by its place among the tenures, that raised the epoch.
    raised: Mutex<Option<usize>>,
    pub accepted_at: Mutex<Option<Instant>>,
    pub mishaps: watch::Sender<u16>,
}

impl Town {
    pub fn new(mishaps: u16) -> Arc<Self> {
        let fair = Weather { latency: Duration::from_millis(30), ..Weather::default() };
        Arc::new(Self {
            lease: Arc::default(),
            store: Arc::default(),
            to_lease: watch::Sender::new(fair),
            to_store: watch::Sender::new(fair),
            count: Mutex::default(),
            raised: Mutex::default(),
            accepted_at: Mutex::default(),
            mishaps: watch::Sender::new(mishaps),
        })
    }

    fn tenure(&self, of: &str) -> Option<usize> {
        self.lease.tenure(of)
    }

    /// The store, as a write of `by` reaches it.
    fn serve_write(&self, by: &str, fence: Fence) -> bool {
        let accepted = self.store.stands_at(fence);
        let stale = self.tenure(by) < *self.raised.try_lock().unwrap();
        let mut count = self.count.try_lock().unwrap();
        count.accepted += u64::from(accepted);
        count.stale += u64::from(stale);
        count.stale_accepted += u64::from(stale && accepted);
        if accepted {
            assert_eq!(self.store.epoch().map(|epoch| epoch.holder).as_deref(), Some(by));
            *self.accepted_at.try_lock().unwrap() = Some(Instant::now());
        }
        accepted
    }

    fn serve_swap(&self, expected: Option<Fence>, epoch: &Epoch) -> bool {
        let done = self.store.swap(expected, epoch);
        if done {
            let by = self.tenure(&epoch.holder);
            let mut raised = self.raised.try_lock().unwrap();
            self.count.try_lock().unwrap().stale_raised += u64::from(by < *raised);
            *raised = by.max(*raised);
        }
        done
    }
}

/// The store as one process reaches it.
pub struct StoreClient {
    town: Arc<Town>,
    wire: Wire,
    me: String,
}

impl StoreClient {
    async fn ask<T: Send + 'static>(
        &self,
        serve: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let silent = |_| Unavailable("no answer".into());
        timeout(DEADLINE, self.wire.call(serve)).await.map_err(silent)?
    }

    fn write(&self, fence: Fence) -> Answer<'_, Result<(), TxnError>> {
        Box::pin(async move {
            // Between the check and the write.
            self.wire.ice.may_freeze().await;
            let (town, me) = (self.town.clone(), self.me.clone());
            let accepted = self.ask(move || town.serve_write(&me, fence)).await?;
            if accepted { Ok(()) } else { Err(TxnError::Fenced) }
        })
    }
}

impl EpochStore for StoreClient {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        let store = self.town.store.clone();
        Box::pin(self.ask(move || store.read()))
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        let (town, epoch) = (self.town.clone(), epoch.clone());
        Box::pin(async move {
            // Between the look at the Lease and the raise.
            self.wire.ice.may_freeze().await;
            self.ask(move || town.serve_swap(expected, &epoch)).await
        })
    }
}

/// A running process.
pub struct Process {
    pub leadership: Arc<Leadership>,
    pub ice: Ice,
    pub stop: watch::Sender<bool>,
    pub running: JoinHandle<()>,
}

impl Process {
    /// Starts one whose clock goes at `rate`.
    pub fn start(town: &Arc<Town>, me: &str, rate: f64) -> Self {
        let ice = Ice::with_mishaps(*town.mishaps.borrow());
        let leadership = Arc::new(Leadership::new(Clock::at_rate(rate)));
        let (stop, stopping) = watch::channel(false);
        let life = live(town.clone(), me.to_owned(), leadership.clone(), ice.clone(), stopping);
        Self { leadership, stop, running: tokio::spawn(ice.around(life)), ice }
    }

    /// Does it believe to lead, and can it act on it?
    pub fn believes(&self) -> bool {
        !self.running.is_finished() && !self.ice.is_frozen() && self.leadership.holds()
    }
}

async fn live(
    town: Arc<Town>,
    me: String,
    leadership: Arc<Leadership>,
    ice: Ice,
    stop: watch::Receiver<bool>,
) {
    let wire = |weather: &watch::Sender<Weather>| Wire { weather: weather.clone(), ice: ice.clone() };
    let lease = LeaseClient { world: town.lease.clone(), wire: wire(&town.to_lease) };
    let elector = Arc::new(Elector::new(lease, &me, leadership.clone(), Arc::default()));
    let signals = Arc::new(Signals::new(elector.clone()));
    let store = Arc::new(StoreClient { town: town.clone(), wire: wire(&town.to_store), me: me.clone() });
    let fenced = Fenced::new(store, "the store", &me, signals.clone());
    let (resign, told) = watch::channel(false);
    let mut election = std::pin::pin!(elector.run(told));
    let work = async {
        tokio::select! {
            () = leadership.leads() => reconcile(&town, &fenced, &stop).await,
            () = until(stop.clone(), |stop| *stop) => {}
        }
    };
    tokio::select! {
        _ = &mut election => return,
        () = until(signals.deposed.subscribe(), Option::is_some) => return,
        () = work => {}
    }
    resign.send_replace(true);
    let _ = timeout(2 * RETRY_PERIOD, election).await;
}

async fn until<T>(mut of: watch::Receiver<T>, is: impl Fn(&T) -> bool) {
    let _ = of.wait_for(is).await;
}

/// Effects, as the pipeline has them: a look at the clock, the fence, the write.
async fn reconcile(town: &Town, fenced: &Fenced<StoreClient>, stop: &watch::Receiver<bool>) {
    town.count.try_lock().unwrap().leaders += 1;
    while !*stop.borrow() {
        let signals = fenced.signals();
        if signals.deposed.borrow().is_none() && signals.tenure.holds() {
            let effects = (0..EFFECTS).map(|_| fence_and(fenced, |fence| fenced.store.write(fence)));
            let _ = join_all(effects).await;
        }
        sleep(Duration::from_millis(fastrand::u64(1000..4000))).await;
    }
}

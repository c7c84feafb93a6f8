//! The queue of wakes: which resource is looked at next, and never one by two passes at once.
//!
//! # Guarantees
//! - Every wake is followed by a pass that begins after it. Several wakes of one resource may share a pass.
//! - At the end no pass is cut off: [`serve`] returns when the last one did.

use std::convert::Infallible;
use std::sync::Arc;

use futures::{StreamExt, stream};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::kubernetes::Guarded;

/// How many resources are reconciled at once.
pub const CONCURRENCY: u16 = 32;

/// Runs `pass` for whoever is `woken`, and again when the pass before asked for it, until `stop`. Who is not among
/// `resources` is left out.
pub async fn serve<C, F>(
    resources: Store<Guarded>,
    woken: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    mut stop: watch::Receiver<bool>,
    pass: impl FnMut(Arc<Guarded>, Arc<C>) -> F,
    context: Arc<C>,
) where
    F: Future<Output = Result<Action, Infallible>> + Send + 'static,
{
    Controller::for_stream(stream::pending(), resources)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(UnboundedReceiverStream::new(woken))
        .graceful_shutdown_on(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .run(pass, |_, never: &Infallible, _| match *never {}, context)
        .for_each(async |_| {})
        .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use fastrand::Rng;
    use kube::runtime::{reflector, watcher::Event};
    use kube::{Resource, ResourceExt};
    use tokio::task::{JoinSet, yield_now};
    use tokio::time::sleep;

    use super::*;

    const OBJECTS: usize = 3000;
    const WAKES: usize = 400_000;
    /// How many passes ask for another: kube's queue for them holds a hundred.
    const AGAIN: usize = 40_000;
    const WAKERS: usize = 8;

    /// What is known of one object.
    #[derive(Default)]
    struct Seen {
        /// The time of its last wake, and of the last pass that began.
        woken: AtomicU64,
        began: AtomicU64,
        running: AtomicBool,
        passes: AtomicUsize,
        /// A pass asked for another, and none began since.
        again: AtomicBool,
    }

    struct Town {
        /// One for each wake and each beginning.
        clock: AtomicU64,
        objects: Vec<Seen>,
        running: AtomicUsize,
        most: AtomicUsize,
        twice: AtomicUsize,
        ended: AtomicUsize,
        again: AtomicUsize,
    }

    impl Town {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                clock: AtomicU64::new(1),
                objects: (0..OBJECTS).map(|_| Seen::default()).collect(),
                running: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                twice: AtomicUsize::new(0),
                ended: AtomicUsize::new(0),
                again: AtomicUsize::new(0),
            })
        }

        async fn pass(self: Arc<Self>, of: usize) -> Result<Action, Infallible> {
            let seen = &self.objects[of];
            if seen.running.swap(true, SeqCst) {
                self.twice.fetch_add(1, SeqCst);
            }
            seen.again.store(false, SeqCst);
            seen.began.store(self.clock.fetch_add(1, SeqCst), SeqCst);
            seen.passes.fetch_add(1, SeqCst);
            self.most.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
            match fastrand::u8(0..10) {
                0 => sleep(Duration::from_micros(fastrand::u64(0..3000))).await,
                1..6 => yield_now().await,
                _ => {}
            }
            let again = fastrand::u8(0..4) > 0 && self.again.fetch_add(1, SeqCst) < AGAIN;
            if again {
                seen.again.store(true, SeqCst);
            }
            self.running.fetch_sub(1, SeqCst);
            self.ended.fetch_add(1, SeqCst);
            seen.running.store(false, SeqCst);
            let wait = Duration::from_millis(fastrand::u64(0..40));
            Ok(if again { Action::requeue(wait) } else { Action::await_change() })
        }

        fn passes(&self) -> usize {
            self.objects.iter().map(|seen| seen.passes.load(SeqCst)).sum()
        }

        /// Those whose last wake no pass followed, and those whose next pass never came.
        fn lost(&self) -> (usize, usize) {
            let late = |seen: &&Seen| seen.began.load(SeqCst) <= seen.woken.load(SeqCst);
            let forgotten = |seen: &&Seen| seen.again.load(SeqCst);
            (self.objects.iter().filter(late).count(), self.objects.iter().filter(forgotten).count())
        }
    }

    fn store() -> Store<Guarded> {
        let (reader, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        let mut object: Guarded =
            serde_saphyr::from_str("{ metadata: { namespace: shop }, spec: { service: { name: x } } }")
                .unwrap();
        for n in 0..OBJECTS {
            object.meta_mut().name = Some(n.to_string());
            writer.apply_watcher_event(&Event::InitApply(object.clone()));
        }
        writer.apply_watcher_event(&Event::InitDone);
        reader
    }

    /// Wakes at random: now one by one, now many at once, now everybody.
    async fn wake(town: Arc<Town>, wake: mpsc::UnboundedSender<ObjectRef<Guarded>>, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut left = WAKES / WAKERS;
        while left > 0 {
            let burst = [1, 10, 1000, OBJECTS][rng.usize(0..4)].min(left);
            let first = rng.usize(0..OBJECTS);
            for n in 0..burst {
                let of = if burst == OBJECTS { (first + n) % OBJECTS } else { rng.usize(0..OBJECTS) };
                let now = town.clock.fetch_add(1, SeqCst);
                town.objects[of].woken.fetch_max(now, SeqCst);
                let _ = wake.send(ObjectRef::new(&of.to_string()).within("shop"));
            }
            left -= burst;
            if rng.bool() {
                sleep(Duration::from_micros(rng.u64(0..500))).await;
            } else {
                yield_now().await;
            }
        }
    }

    struct Run {
        town: Arc<Town>,
        serving: tokio::task::JoinHandle<()>,
        wakers: JoinSet<()>,
        stop: watch::Sender<bool>,
        // The queue of the operator never ends by itself.
        _wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    }

    fn start(seed: u64) -> Run {
        let town = Town::new();
        let (to, woken) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let pass = |object: Arc<Guarded>, town: Arc<Town>| town.pass(object.name_any().parse().unwrap());
        let serving = tokio::spawn(serve(store(), woken, stopping, pass, town.clone()));
        let mut wakers = JoinSet::new();
        for n in 0..WAKERS as u64 {
            wakers.spawn(wake(town.clone(), to.clone(), seed * 100 + n));
        }
        Run { town, serving, wakers, stop, _wake: to }
    }

    async fn nothing_is_lost(seed: u64, calm: impl AsyncFnOnce(&Town)) {
        let Run { town, serving, mut wakers, stop, _wake } = start(seed);
        while let Some(done) = wakers.join_next().await {
            done.unwrap();
        }
        calm(&town).await;
        assert_eq!(town.lost(), (0, 0), "wakes without a pass, passes that were asked for");
        assert_eq!((town.running.load(SeqCst), town.twice.load(SeqCst)), (0, 0));
        assert_eq!(town.most.load(SeqCst), usize::from(CONCURRENCY));
        stop.send_replace(true);
        serving.await.unwrap();
        let passes = town.passes();
        assert!(town.again.load(SeqCst) >= AGAIN);
        assert_eq!(passes, town.ended.load(SeqCst), "no pass was cut off");
        println!("{WAKES} wakes of {OBJECTS} objects, {AGAIN} asked to come again: {passes} passes");
    }

    /// The clock moves only when nothing is left to do before.
    #[tokio::test(start_paused = true)]
    async fn of_hundreds_of_thousands_of_wakes_none_is_lost() {
        nothing_is_lost(1, async |_| sleep(Duration::from_hours(1)).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_hundreds_of_thousands_of_wakes_from_several_threads_none_is_lost() {
        nothing_is_lost(2, async |town| {
            // What was lost never comes; what is late does.
            for _ in 0..6000 {
                let asked = town.again.load(SeqCst) >= AGAIN;
                if asked && town.lost() == (0, 0) && town.running.load(SeqCst) == 0 {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_in_the_middle_cuts_no_pass_off() {
        for seed in 0..8 {
            let Run { town, serving, wakers, stop, _wake } = start(seed);
            while town.passes() < 200 * usize::try_from(seed).unwrap() {
                sleep(Duration::from_micros(100)).await;
            }
            stop.send_replace(true);
            serving.await.unwrap();
            let passes = town.passes();
            assert_eq!((town.running.load(SeqCst), town.ended.load(SeqCst)), (0, passes));
            sleep(Duration::from_secs(60)).await;
            assert_eq!(town.passes(), passes, "none began after the end");
            drop(wakers);
        }
    }
}

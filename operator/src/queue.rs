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
    mut pass: impl FnMut(Arc<Guarded>, Arc<C>) -> F,
    context: Arc<C>,
) where
    F: Future<Output = Result<Action, Infallible>> + Send + 'static,
{
    let running = watch::Sender::new(0);
    let begin = |object, context| finish(&running, pass(object, context));
    Controller::for_stream(stream::pending(), resources)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(UnboundedReceiverStream::new(woken))
        .graceful_shutdown_on(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .run(begin, |_, never: &Infallible, _| match *never {}, context)
        .for_each(async |_| {})
        .await;
    let _ = running.subscribe().wait_for(|running| *running == 0).await;
}

/// Runs a pass to its end, whatever becomes of the future that is given. The runtime (kube-runtime 5.0) lets go of one
/// that it begins at the moment of the stop, if none ran before.
fn finish<F>(
    running: &watch::Sender<usize>,
    pass: F,
) -> impl Future<Output = Result<Action, Infallible>> + Send + use<F>
where
    F: Future<Output = Result<Action, Infallible>> + Send + 'static,
{
    let busy = Busy::of(running);
    let pass = tokio::spawn(async move {
        let _busy = busy;
        pass.await
    });
    async move {
        match pass.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process ends.
                Err(_) => Ok(Action::await_change()),
            },
        }
    }
}

/// A pass that runs, or did not begin yet.
struct Busy(watch::Sender<usize>);

impl Busy {
    fn of(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use fastrand::Rng;
    use kube::runtime::{reflector, watcher::Event};
    use kube::{Resource, ResourceExt};
    use tokio::task::{JoinHandle, JoinSet, yield_now};
    use tokio::time::sleep;

    use super::*;

    const OBJECTS: usize = 3000;
    /// After each of them everything is done: a wake that is lost shows only where no other came after it.
    const STORMS: usize = 100;
    /// In each.
    const WAKES: usize = 4000;
    const WAKERS: usize = 8;
    /// How many passes ask for another, in each: kube's queue for them holds a hundred.
    const AGAIN: usize = 400;

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
        /// How many may ask for another pass.
        may_ask: AtomicUsize,
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
                may_ask: AtomicUsize::new(AGAIN),
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
            // Half of them never ask, so that nothing but a wake brings them here.
            let asks = of.is_multiple_of(2) && fastrand::u8(0..10) > 0;
            let again = asks && self.again.load(SeqCst) < self.may_ask.load(SeqCst);
            if again {
                self.again.fetch_add(1, SeqCst);
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
            let late = |seen: &&Seen| seen.began.load(SeqCst) < seen.woken.load(SeqCst);
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
            let burst = [1, 10, 100, WAKES][rng.usize(0..4)].min(left);
            let first = rng.usize(0..OBJECTS);
            for n in 0..burst {
                let of = if burst > 100 { (first + n) % OBJECTS } else { rng.usize(0..OBJECTS) };
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
        serving: JoinHandle<()>,
        stop: watch::Sender<bool>,
        // The queue of the operator never ends by itself.
        wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    }

    impl Run {
        fn start() -> Self {
            let town = Town::new();
            let (wake, woken) = mpsc::unbounded_channel();
            let (stop, stopping) = watch::channel(false);
            let pass = |object: Arc<Guarded>, town: Arc<Town>| town.pass(object.name_any().parse().unwrap());
            let serving = tokio::spawn(serve(store(), woken, stopping, pass, town.clone()));
            Self { town, serving, stop, wake }
        }

        fn storm(&self, seed: usize) -> JoinSet<()> {
            let seeds = (0..WAKERS).map(|n| (seed * WAKERS + n) as u64);
            seeds.map(|seed| wake(self.town.clone(), self.wake.clone(), seed)).collect()
        }
    }

    async fn nothing_is_lost(calm: impl AsyncFn(&Town)) {
        let run = Run::start();
        let town = &run.town;
        for storm in 0..STORMS {
            town.may_ask.store((storm + 1) * AGAIN, SeqCst);
            run.storm(storm).join_all().await;
            calm(town).await;
            assert_eq!(town.lost(), (0, 0), "{storm}: wakes without a pass, passes that were asked for");
            assert_eq!((town.running.load(SeqCst), town.twice.load(SeqCst)), (0, 0));
        }
        assert_eq!(town.most.load(SeqCst), usize::from(CONCURRENCY));
        run.stop.send_replace(true);
        run.serving.await.unwrap();
        let (passes, again) = (town.passes(), town.again.load(SeqCst));
        assert_eq!(passes, town.ended.load(SeqCst), "no pass was cut off");
        println!(
            "{} wakes of {OBJECTS} objects, {again} asked to come again: {passes} passes",
            STORMS * WAKES
        );
    }

    /// The clock moves only when nothing is left to do before.
    #[tokio::test(start_paused = true)]
    async fn of_hundreds_of_thousands_of_wakes_none_is_lost() {
        nothing_is_lost(async |_| sleep(Duration::from_hours(1)).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_hundreds_of_thousands_of_wakes_from_several_threads_none_is_lost() {
        nothing_is_lost(async |town| {
            // What was lost never comes; what is late does.
            for _ in 0..6000 {
                if town.lost() == (0, 0) && town.running.load(SeqCst) == 0 {
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
            let run = Run::start();
            let town = run.town.clone();
            let storm = run.storm(seed);
            while town.passes() < 150 * seed {
                sleep(Duration::from_micros(100)).await;
            }
            run.stop.send_replace(true);
            run.serving.await.unwrap();
            let passes = town.passes();
            assert_eq!((town.running.load(SeqCst), town.ended.load(SeqCst)), (0, passes));
            sleep(Duration::from_mins(1)).await;
            assert_eq!(town.passes(), passes, "none began after the end");
            drop(storm);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_begins_as_the_stop_comes_is_not_cut_off() {
        let town = Town::new();
        let (wake, woken) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let pass = move |_, town: Arc<Town>| {
            stop.send_replace(true);
            async move {
                sleep(Duration::from_secs(1)).await;
                town.pass(1).await
            }
        };
        wake.send(ObjectRef::new("1").within("shop")).unwrap();
        serve(store(), woken, stopping, pass, town.clone()).await;
        assert_eq!((town.passes(), town.ended.load(SeqCst)), (1, 1));
    }
}

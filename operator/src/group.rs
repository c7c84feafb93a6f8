//! Group commit: what several callers want written at about the same time goes out together.
//!
//! # Guarantees
//! - Jobs go out in the order they came, each once, one transaction at a time.
//! - A job waits for company for [`LINGER`] at most, and not at all once no more fits in.
//! - A caller that goes away holds up nobody: its job is left out, if it is not on its way yet.
//! - Every caller hears within [`DEADLINE`]; None: nobody knows whether its job took place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::gate::DEADLINE;

/// How long a transaction waits for more to go with it.
pub const LINGER: Duration = Duration::from_millis(2);

/// Where the jobs go.
pub trait Sink: Send + Sync + 'static {
    /// What one caller wants done, whole or not at all.
    type Job: Send;
    /// What becomes of it.
    type Answer: Send;

    /// How many of the first of these go together. At least one.
    fn together<'a>(&self, waiting: impl Iterator<Item = &'a Self::Job>) -> usize;

    /// Does them, and answers each in its place.
    fn send(&self, jobs: Vec<Self::Job>) -> BoxFuture<'_, Vec<Self::Answer>>;
}

/// A job and whom to tell.
type Waiting<S> = (<S as Sink>::Job, oneshot::Sender<<S as Sink>::Answer>);

/// The way to a sink.
pub struct Group<S: Sink>(Arc<Inner<S>>);

struct Inner<S: Sink> {
    sink: S,
    queue: mpsc::UnboundedSender<Waiting<S>>,
    /// Whoever holds it sends.
    turn: Mutex<Turn<S>>,
}

struct Turn<S: Sink> {
    coming: mpsc::UnboundedReceiver<Waiting<S>>,
    waiting: VecDeque<Waiting<S>>,
}

impl<S: Sink> Group<S> {
    /// To `sink`. Nothing is sent yet.
    pub fn new(sink: S) -> Self {
        let (queue, coming) = mpsc::unbounded_channel();
        let turn = Mutex::new(Turn { coming, waiting: VecDeque::new() });
        Self(Arc::new(Inner { sink, queue, turn }))
    }

    /// Where the jobs go.
    pub fn sink(&self) -> &S {
        &self.0.sink
    }

    /// Does `job` together with others.
    pub async fn run(&self, job: S::Job) -> Option<S::Answer> {
        let (tell, told) = oneshot::channel();
        // The receiver lives as long as the group.
        let _ = self.0.queue.send((job, tell));
        // One task for each job, and each sends at least one: so none is left, whoever ends or fails. A task of its
        // own, since this caller may end while others depend on what it sends.
        let inner = self.0.clone();
        tokio::spawn(async move { inner.turn().await });
        timeout(DEADLINE, told).await.ok()?.ok()
    }
}

impl<S: Sink> Inner<S> {
    /// Sends what goes together, once.
    async fn turn(&self) {
        let mut turn = self.turn.lock().await;
        let until = Instant::now() + LINGER;
        let together = loop {
            turn.gather();
            let together = self.sink.together(turn.waiting.iter().map(|(job, _)| job));
            if turn.waiting.is_empty() || together < turn.waiting.len() {
                break together;
            }
            match timeout_at(until, turn.coming.recv()).await {
                Ok(Some(one)) => turn.waiting.push_back(one),
                _ => break together,
            }
        };
        let (jobs, callers): (Vec<_>, Vec<_>) = turn.waiting.drain(..together).unzip();
        if jobs.is_empty() {
            return;
        }
        for (caller, answer) in callers.into_iter().zip(self.sink.send(jobs).await) {
            // Who went away meanwhile is told nothing.
            let _ = caller.send(answer);
        }
    }
}

impl<S: Sink> Turn<S> {
    /// Takes in what has come, and leaves out whose caller is gone.
    fn gather(&mut self) {
        while let Ok(one) = self.coming.try_recv() {
            self.waiting.push_back(one);
        }
        self.waiting.retain(|(_, caller)| !caller.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::watch;

    use super::*;

    /// Keeps what was sent; takes `MOST` at once, and as long as it is told to.
    #[derive(Default)]
    struct Log {
        sent: watch::Sender<Vec<Vec<u32>>>,
        takes: Duration,
    }

    const MOST: usize = 4;
    /// A job that ends its sender.
    const DEADLY: u32 = 666;

    impl Sink for Log {
        type Job = u32;
        type Answer = u32;

        fn together<'a>(&self, waiting: impl Iterator<Item = &'a u32>) -> usize {
            waiting.take(MOST).count()
        }

        fn send(&self, jobs: Vec<u32>) -> BoxFuture<'_, Vec<u32>> {
            Box::pin(async move {
                tokio::time::sleep(self.takes).await;
                assert!(!jobs.contains(&DEADLY), "on purpose");
                self.sent.send_modify(|sent| sent.push(jobs.clone()));
                jobs.iter().map(|job| job * 10).collect()
            })
        }
    }

    fn group(takes: Duration) -> Arc<Group<Log>> {
        Arc::new(Group::new(Log { takes, ..Log::default() }))
    }

    fn sent(group: &Group<Log>) -> Vec<Vec<u32>> {
        group.sink().sent.borrow().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_goes_together_in_order_and_each_hears_of_its_own() {
        let (group, start) = (group(Duration::ZERO), Instant::now());
        let answers = join_all((0..10).map(|n| group.run(n))).await;
        assert_eq!(answers, (0..10).map(|n| Some(n * 10)).collect::<Vec<_>>());
        assert_eq!(sent(&group), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        assert_eq!(Instant::now() - start, LINGER, "only what was not full waited");
        assert_eq!(group.run(10).await, Some(100));
        assert_eq!(Instant::now() - start, 2 * LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_during_a_transaction_is_the_next_one() {
        let group = group(Duration::from_millis(10));
        let late = async |n: u32, after: u64| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            group.run(n).await
        };
        tokio::join!(late(0, 0), late(1, 4), late(2, 6), late(3, 8));
        assert_eq!(sent(&group), [vec![0], vec![1, 2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_holds_up_nobody_and_its_job_is_left_out() {
        let group = group(Duration::from_millis(10));
        // The first goes away when its job is on its way, the second before.
        let mut first = Box::pin(group.run(0));
        assert!(first.as_mut().now_or_never().is_none());
        tokio::time::sleep(LINGER * 2).await;
        let mut second = Box::pin(group.run(1));
        assert!(second.as_mut().now_or_never().is_none());
        let third = group.run(2);
        drop((first, second));
        assert_eq!(third.await, Some(20));
        assert_eq!(sent(&group), [vec![0], vec![2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_silence_hears_in_time_and_its_job_is_not_sent_later() {
        let (group, start) = (group(DEADLINE * 3), Instant::now());
        let first = group.run(0);
        let second = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            group.run(1).await
        };
        assert_eq!(tokio::join!(first, second), (None, None));
        assert_eq!(Instant::now() - start, DEADLINE + Duration::from_secs(1));
        tokio::time::sleep(DEADLINE * 10).await;
        assert_eq!(sent(&group), [vec![0]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_fails_takes_only_its_own_with_it() {
        let group = group(Duration::from_millis(1));
        let all = [DEADLY, 1, 2, 3, 4, 5];
        let answers = join_all(all.map(|n| group.run(n))).await;
        assert_eq!(answers, [None, None, None, None, Some(40), Some(50)]);
    }

    /// Whatever the order in which callers come and go, each that stays hears of its own.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_that_come_and_go_at_random() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let group = group(Duration::from_micros(random.u64(0..5000)));
            let callers = (0..100).map(|n| {
                let (group, after) = (group.clone(), Duration::from_micros(random.u64(0..20_000)));
                let patience =
                    if random.bool() { DEADLINE } else { Duration::from_micros(random.u64(1..4000)) };
                async move {
                    tokio::time::sleep(after).await;
                    let answer = timeout(patience, group.run(n)).await;
                    assert!(answer.is_ok() || patience < DEADLINE, "seed {seed}: {n} hears nothing");
                    assert!(answer.is_err() || answer == Ok(Some(n * 10)), "seed {seed}: {answer:?} for {n}");
                    answer.is_ok().then_some(n)
                }
            });
            let answered: BTreeSet<u32> = join_all(callers).await.into_iter().flatten().collect();
            let all: Vec<u32> = sent(&group).concat();
            let once: BTreeSet<u32> = all.iter().copied().collect();
            assert_eq!(all.len(), once.len(), "seed {seed}: one was sent twice");
            assert!(once.is_superset(&answered), "seed {seed}: one was answered and not sent");
        }
    }
}

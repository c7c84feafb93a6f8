//! The fence of every write: an epoch key in each store, raised by whoever won the Lease.
//!
//! # Guarantees
//! - A transaction compares the epoch key, so the write of a deposed process is refused by the store itself.
//! - Only who holds the Lease, by a fresh read, raises an epoch.
//! - A store that lost its key or went back in time (restored, wiped) is fenced anew, and everything in it
//!   is looked at again.
//!
//! # Caveats
//! - Two releases of the operator with one cluster name have a Lease each, and depose each other in turn.

use std::sync::{Arc, OnceLock};

use fusebox_policy::wire::Epoch;
use tokio::sync::{Mutex, Notify, watch};

use crate::leader::Tenure;
use crate::ports::{EpochStore, Fence, Unavailable};

/// How often a lost race for the key is run again before the backend counts as unavailable.
const RACES: usize = 5;

/// What to do about the epoch key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is mine: remember where it stands.
    Adopt(u64),
    /// Write this epoch with me as its holder.
    Raise(u64),
    /// Another process holds it by right: end.
    Deposed,
    /// It is an operator's of another Kubernetes cluster, which has the same name by mistake: write nothing.
    Elsewhere,
}

/// Decides from the epoch this process holds, if any, and the one in the store.
pub fn decide(mine: Option<u64>, seen: Option<&Epoch>, me: &str, home: &str) -> Decision {
    match seen {
        Some(seen) if ![home, ""].contains(&seen.home.as_str()) && !home.is_empty() => Decision::Elsewhere,
        Some(seen) if seen.holder == me && mine.is_none_or(|mine| seen.epoch >= mine) => {
            Decision::Adopt(seen.epoch)
        }
        Some(seen) if seen.holder != me && mine.is_some_and(|mine| seen.epoch >= mine) => Decision::Deposed,
        seen => Decision::Raise(mine.max(seen.map(|seen| seen.epoch)).unwrap_or_default().saturating_add(1)),
    }
}

/// What the whole process must hear of.
pub struct Signals {
    /// The right to write at all.
    pub tenure: Arc<dyn Tenure>,
    /// Which Kubernetes cluster this is, once it is known.
    pub home: OnceLock<String>,
    /// A store was restored or came back: reconcile everything.
    pub resync: Notify,
    /// Another process took over: end, for this reason.
    pub deposed: watch::Sender<Option<String>>,
}

impl Signals {
    /// Nothing happened yet.
    pub fn new(tenure: Arc<dyn Tenure>) -> Self {
        Self { tenure, home: OnceLock::new(), resync: Notify::default(), deposed: watch::Sender::default() }
    }
}

/// Why there is no fence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Another process holds the epoch, or the Lease.
    #[error("{0}")]
    Deposed(String),
    /// The store is another Kubernetes cluster's by this cluster's name.
    #[error("{0}")]
    Elsewhere(String),
    /// Leadership ended by our own clock; the election ends the process.
    #[error("this process does not lead any more")]
    NotLeading,
    /// The store lost our epoch; it is fenced again, but what was read of it before is worth nothing.
    #[error("the store was wiped or restored from an older state; everything is written again")]
    Restored,
}

#[derive(Debug, Default)]
struct Held {
    epoch: Option<u64>,
    fence: Option<Fence>,
}

/// A store together with the right to write to it.
pub struct Fenced<S: ?Sized> {
    /// The store.
    pub store: Arc<S>,
    what: &'static str,
    me: String,
    held: Mutex<Held>,
    signals: Arc<Signals>,
}

impl<S: EpochStore + ?Sized> Fenced<S> {
    /// `me` is unique for each start of the process; `what` names the store to people.
    pub fn new(store: Arc<S>, what: &'static str, me: &str, signals: Arc<Signals>) -> Self {
        Self { store, what, me: me.to_owned(), held: Mutex::default(), signals }
    }

    /// Where the whole process hears of it.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Where the epoch key stands; acquired if it is not held yet.
    pub async fn fence(&self) -> Result<Fence, FenceError> {
        let mut held = self.held.lock().await;
        let fence = match held.fence {
            Some(fence) => fence,
            None => self.acquire(&mut held).await?,
        };
        self.still(fence)
    }

    /// After a transaction was refused at `used`: where the key stands now, if it still is ours.
    pub async fn refused(&self, used: Fence) -> Result<Fence, FenceError> {
        let mut held = self.held.lock().await;
        let fence = match held.fence {
            Some(fence) if fence != used => fence,
            _ => {
                held.fence = None;
                self.acquire(&mut held).await?
            }
        };
        self.still(fence)
    }

    /// To take the epoch may have lasted: the clock is looked at last.
    fn still(&self, fence: Fence) -> Result<Fence, FenceError> {
        if self.signals.tenure.holds() { Ok(fence) } else { Err(FenceError::NotLeading) }
    }

    fn deposed(&self, why: String) -> FenceError {
        self.signals.deposed.send_replace(Some(why.clone()));
        FenceError::Deposed(why)
    }

    /// Asks the store whether this process still is the writer: for what has no fence of its own.
    pub async fn verify(&self) -> Result<(), FenceError> {
        let Some(fence) = self.held.lock().await.fence else { return self.fence().await.map(drop) };
        match self.store.read_epoch().await? {
            // A store that was wiped may count anew: another's epoch may stand where ours stood.
            Some((epoch, at)) if at == fence && epoch.holder == self.me => Ok(()),
            _ => self.refused(fence).await.map(drop),
        }
    }

    async fn acquire(&self, held: &mut Held) -> Result<Fence, FenceError> {
        let mut raised_again = false;
        for _ in 0..RACES {
            let seen = self.store.read_epoch().await?;
            let home = self.signals.home.get().map_or("", String::as_str);
            match decide(held.epoch, seen.as_ref().map(|(epoch, _)| epoch), &self.me, home) {
                Decision::Elsewhere => {
                    let by = seen.map(|(epoch, _)| epoch.holder).unwrap_or_default();
                    return Err(FenceError::Elsewhere(format!(
                        "this cluster's name belongs to another Kubernetes cluster in {} (its operator {by} wrote \
                         last), so nothing is written there: give this one a name of its own in the operator \
                         chart's value cluster. Only if that cluster is gone for good, delete the epoch key there",
                        self.what
                    )));
                }
                Decision::Adopt(epoch) => {
                    let Some((_, fence)) = seen else { continue };
                    tracing::info!(store = self.what, epoch, "this process is the writer");
                    *held = Held { epoch: Some(epoch), fence: Some(fence) };
                    if raised_again {
                        self.signals.resync.notify_one();
                        return Err(FenceError::Restored);
                    }
                    return Ok(fence);
                }
                Decision::Deposed => {
                    let by = seen.map(|(epoch, _)| epoch.holder).unwrap_or_default();
                    let why =
                        format!("another operator of this cluster name took over in {}: {by}", self.what);
                    return Err(self.deposed(why));
                }
                Decision::Raise(epoch) => {
                    // After the read that the swap compares with: who leads since then has moved the key.
                    if !self.signals.tenure.confirm().await? {
                        let why =
                            format!("another replica holds the Lease, so {} is its to write", self.what);
                        return Err(self.deposed(why));
                    }
                    raised_again |= held.epoch.is_some();
                    let epoch = Epoch { epoch, holder: self.me.clone(), home: home.to_owned() };
                    self.store.swap_epoch(seen.map(|(_, fence)| fence), &epoch).await?;
                }
            }
        }
        Err(Unavailable(format!("{}: the epoch key changes faster than it can be taken", self.what)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{EpochWorld, TenureWorld};

    fn epoch(epoch: u64, holder: &str) -> Epoch {
        Epoch { epoch, holder: holder.into(), ..Epoch::default() }
    }

    #[test]
    fn the_table_of_decisions() {
        for (mine, seen, decision) in [
            (None, None, Decision::Raise(1)),
            (None, Some(epoch(7, "old")), Decision::Raise(8)),
            (None, Some(epoch(7, "me")), Decision::Adopt(7)),
            (Some(7), Some(epoch(7, "me")), Decision::Adopt(7)),
            (Some(7), Some(epoch(8, "me")), Decision::Adopt(8)),
            (Some(7), Some(epoch(8, "new")), Decision::Deposed),
            (Some(7), Some(epoch(7, "new")), Decision::Deposed),
            (Some(7), Some(epoch(3, "old")), Decision::Raise(8)),
            (Some(7), Some(epoch(3, "me")), Decision::Raise(8)),
            (Some(7), None, Decision::Raise(8)),
        ] {
            assert_eq!(decide(mine, seen.as_ref(), "me", ""), decision, "{mine:?} {seen:?}");
            assert_eq!(decide(mine, seen.as_ref(), "me", "here"), decision, "one that does not say where");
            let here = seen.clone().map(|seen| Epoch { home: "here".into(), ..seen });
            assert_eq!(decide(mine, here.as_ref(), "me", "here"), decision, "{mine:?} {here:?}");
            assert_eq!(decide(mine, here.as_ref(), "me", ""), decision, "not known is not elsewhere");
            let decision = if here.is_some() { Decision::Elsewhere } else { decision };
            assert_eq!(decide(mine, here.as_ref(), "me", "there"), decision, "{mine:?} {here:?}");
        }
    }

    fn fenced(store: &Arc<EpochWorld>, me: &str) -> (Fenced<EpochWorld>, Arc<Signals>) {
        leading(store, me, &Arc::default())
    }

    fn leading(
        store: &Arc<EpochWorld>,
        me: &str,
        tenure: &Arc<TenureWorld>,
    ) -> (Fenced<EpochWorld>, Arc<Signals>) {
        let signals = Arc::new(Signals::new(tenure.clone()));
        (Fenced::new(store.clone(), "a test", me, signals.clone()), signals)
    }

    #[tokio::test]
    async fn a_second_process_deposes_the_first() {
        let store = Arc::new(EpochWorld::default());
        let (first, signals) = fenced(&store, "first");
        let (second, _) = fenced(&store, "second");
        let used = first.fence().await.unwrap();
        let theirs = second.fence().await.unwrap();
        assert_ne!(used, theirs);
        assert!(matches!(first.refused(used).await, Err(FenceError::Deposed(why)) if why.contains("second")));
        assert!(signals.deposed.borrow().is_some());
    }

    #[tokio::test]
    async fn a_wiped_store_is_fenced_again_above_the_old_epoch_and_everything_is_resynced() {
        let store = Arc::new(EpochWorld::default());
        let (fenced, signals) = fenced(&store, "me");
        let used = fenced.fence().await.unwrap();
        store.set(None);
        assert_eq!(fenced.refused(used).await, Err(FenceError::Restored));
        signals.resync.notified().await;
        assert_eq!(store.epoch().unwrap(), epoch(2, "me"));
        assert!(fenced.fence().await.is_ok());
    }

    #[tokio::test]
    async fn a_moved_index_is_adopted() {
        let store = Arc::new(EpochWorld::default());
        let (fenced, _) = fenced(&store, "me");
        let used = fenced.fence().await.unwrap();
        store.set(Some(epoch(1, "me")));
        let moved = fenced.refused(used).await.unwrap();
        assert_ne!(moved, used);
        assert_eq!(
            fenced.refused(used).await.unwrap(),
            moved,
            "a second refusal at the old place changes nothing"
        );
    }

    #[tokio::test]
    async fn who_asks_hears_that_another_took_over() {
        let store = Arc::new(EpochWorld::default());
        let (first, signals) = fenced(&store, "first");
        first.fence().await.unwrap();
        assert_eq!(first.verify().await, Ok(()));
        store.set(store.epoch());
        assert_eq!(first.verify().await, Ok(()), "it moved and is mine");
        let (second, _) = fenced(&store, "second");
        second.fence().await.unwrap();
        assert!(matches!(first.verify().await, Err(FenceError::Deposed(_))));
        assert!(signals.deposed.borrow().is_some());
        assert_eq!(second.verify().await, Ok(()));
        store.set(None);
        assert_eq!(second.verify().await, Err(FenceError::Restored));
        assert_eq!(store.epoch(), Some(epoch(3, "second")));
    }

    #[tokio::test]
    async fn another_epoch_in_the_same_place_of_a_wiped_store_is_not_mine() {
        let store = Arc::new(EpochWorld::default());
        let (first, signals) = fenced(&store, "first");
        let used = first.fence().await.unwrap();
        store.wipe();
        let (second, _) = fenced(&store, "second");
        assert_eq!(second.fence().await, Ok(used));
        assert_eq!(first.verify().await.map_err(|error| matches!(error, FenceError::Deposed(_))), Err(true));
        assert!(signals.deposed.borrow().is_some());
    }

    /// Else the sweep of one would take the entries of the other for orphans.
    #[tokio::test]
    async fn a_name_that_another_kubernetes_cluster_has_is_not_taken() {
        let store = Arc::new(EpochWorld::default());
        let (first, signals) = fenced(&store, "first");
        signals.home.set("here".to_owned()).unwrap();
        let used = first.fence().await.unwrap();
        let (second, elsewhere) = fenced(&store, "second");
        elsewhere.home.set("there".to_owned()).unwrap();
        let told = second.fence().await.unwrap_err();
        assert!(
            matches!(&told, FenceError::Elsewhere(why) if why.contains("first") && why.contains("a test"))
        );
        assert!(elsewhere.deposed.borrow().is_none(), "it goes on, and tells");
        assert_eq!((first.fence().await.unwrap(), store.epoch().unwrap().holder.as_str()), (used, "first"));
    }

    #[tokio::test]
    async fn a_lost_answer_to_the_raise_is_no_second_raise() {
        let store = Arc::new(EpochWorld::default());
        let (fenced, _) = fenced(&store, "me");
        store.lose_next_answer();
        assert!(fenced.fence().await.is_err());
        assert!(fenced.fence().await.is_ok());
        assert_eq!(store.epoch().unwrap(), epoch(1, "me"));
    }

    #[tokio::test]
    async fn who_does_not_hold_the_lease_raises_no_epoch() {
        let store = Arc::new(EpochWorld::default());
        let tenure = Arc::new(TenureWorld::default());
        let (fenced, signals) = leading(&store, "me", &tenure);
        tenure.lose();
        assert!(matches!(fenced.fence().await, Err(FenceError::Deposed(why)) if why.contains("Lease")));
        assert!(signals.deposed.borrow().is_some());
        assert_eq!(store.epoch(), None);
    }

    #[tokio::test]
    async fn a_wiped_store_is_not_fenced_again_by_who_lost_the_lease() {
        let store = Arc::new(EpochWorld::default());
        let tenure = Arc::new(TenureWorld::default());
        let (fenced, signals) = leading(&store, "me", &tenure);
        let used = fenced.fence().await.unwrap();
        store.set(None);
        tenure.set_unknown(true);
        assert!(
            matches!(fenced.refused(used).await, Err(FenceError::Unavailable(_))),
            "not known is not mine"
        );
        assert!(signals.deposed.borrow().is_none());
        tenure.set_unknown(false);
        tenure.lose();
        assert!(matches!(fenced.refused(used).await, Err(FenceError::Deposed(_))));
        assert!(signals.deposed.borrow().is_some());
        assert_eq!(store.epoch(), None);
    }

    #[tokio::test]
    async fn a_held_fence_is_none_after_leadership_ended() {
        let store = Arc::new(EpochWorld::default());
        let tenure = Arc::new(TenureWorld::default());
        let (fenced, _) = leading(&store, "me", &tenure);
        fenced.fence().await.unwrap();
        tenure.lose();
        assert_eq!(fenced.fence().await, Err(FenceError::NotLeading));
    }
}

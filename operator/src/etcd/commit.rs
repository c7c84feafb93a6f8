//! Changes of several resources in one transaction. One that cannot be made does not keep the others from being made.
//!
//! # Guarantees
//! - What somebody changed meanwhile, or what etcd refuses, is refused to the change that wants it; the others go on
//!   at once.
//! - A moved epoch key is told to all, and so is no answer.

use std::sync::Arc;

use fusebox_policy::wire::Epoch;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::batch::{self, Change, Why};
use super::link::{Failure, Link, value};
use crate::group::Sink;
use crate::ports::{TxnError, Unavailable};

/// What becomes of a change.
type Done = Result<(), TxnError>;

/// Where changes are committed.
pub struct Commit {
    link: Arc<Link>,
    /// The epoch key.
    epoch: String,
    /// What this process, by its name, wrote there last.
    own: watch::Sender<Option<(String, String)>>,
}

impl Commit {
    /// To one etcd, under the epoch of this key.
    pub fn new(link: Arc<Link>, epoch: String) -> Self {
        Self { link, epoch, own: watch::Sender::default() }
    }

    /// This process writes `json` to the epoch key. It may not hear whether it did; what it wrote before comes back,
    /// for [`Self::raised_nothing`].
    pub fn raises(&self, epoch: &Epoch, json: &str) -> Option<(String, String)> {
        self.own.send_replace(Some((epoch.holder.clone(), json.to_owned())))
    }

    /// Somebody was faster: what stands there, if it is ours, is what it was `before`.
    pub fn raised_nothing(&self, before: Option<(String, String)>) {
        self.own.send_replace(before);
    }

    /// The epoch key was read. If this process is its holder, that is what its changes are compared with.
    pub fn seen(&self, epoch: &Epoch, json: &str) {
        self.own.send_if_modified(|own| match own {
            Some((holder, own)) if *holder == epoch.holder && own != json => {
                json.clone_into(own);
                true
            }
            _ => false,
        });
    }

    /// All of them or none. Ok and some: whose comparisons failed.
    async fn once(&self, changes: &[&Change]) -> Result<Option<Why>, Failure> {
        let own = self.own.borrow().as_ref().map(|(_, json)| json.clone());
        let txn = batch::txn(&self.epoch, own.as_deref(), changes);
        let (succeeded, answers) = self.link.txn(txn).await?;
        Ok((!succeeded).then(|| batch::why(own.as_deref(), changes, answers.iter().map(value).collect())))
    }

    /// As many of them as possible, each with what became of it.
    async fn all(&self, changes: &[Change]) -> Vec<Done> {
        let mut done: Vec<Option<Done>> = vec![None; changes.len()];
        // What is tried next, each with its place.
        let mut tries: Vec<Vec<usize>> = vec![(0..changes.len()).collect()];
        let mut over = None;
        while let (Some(places), None) = (tries.pop(), &over) {
            let one: Vec<&Change> = places.iter().map(|at| &changes[*at]).collect();
            match self.once(&one).await {
                Ok(None) => places.iter().for_each(|at| done[*at] = Some(Ok(()))),
                Ok(Some(Why::Fenced)) => over = Some(TxnError::Fenced),
                Ok(Some(Why::Guarded(wrong))) => {
                    let (right, wrong): (Vec<_>, Vec<_>) =
                        places.into_iter().zip(wrong).partition(|(_, wrong)| wrong.is_empty());
                    if wrong.is_empty() {
                        let what = "etcd did not make a change whose comparisons all hold".to_owned();
                        over = Some(Unavailable(what).into());
                    }
                    for (at, keys) in wrong {
                        let why = format!("{} was changed meanwhile", keys.join(", "));
                        done[at] = Some(Err(TxnError::Refused(vec![(0, why)])));
                    }
                    let right: Vec<usize> = right.into_iter().map(|(at, _)| at).collect();
                    tries.extend((!right.is_empty()).then_some(right));
                }
                // Which of them it is etcd does not say.
                Err(failure) if failure.refused && places.len() > 1 => {
                    tries.extend(places.into_iter().rev().map(|at| vec![at]));
                }
                Err(failure) if failure.refused => done[places[0]] = Some(Err(failure.told.into())),
                Err(failure) => over = Some(failure.told.into()),
            }
        }
        let over = over.unwrap_or_else(|| Unavailable("etcd was not asked".to_owned()).into());
        done.into_iter().map(|done| done.unwrap_or_else(|| Err(over.clone()))).collect()
    }
}

impl Sink for Commit {
    type Job = Change;
    type Answer = Done;

    fn together<'a>(&self, waiting: impl Iterator<Item = &'a Change>) -> usize {
        batch::together(waiting)
    }

    fn send(&self, changes: Vec<Change>) -> BoxFuture<'_, Vec<Done>> {
        Box::pin(async move { self.all(&changes).await })
    }
}

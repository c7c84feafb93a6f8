//! Policies from etcd and reports to it.
//!
//! Two tasks, each with a connection of its own: one follows the policy's key, one keeps the
//! report; a third follows the number of instances where the policy shares a rate among them. The first report
//! of a process is written before its first policy of etcd is applied, so that no report of a process before it,
//! in the same pod, stands for the policy of this one. A policy from disk is in force before: it is the last one
//! of that process.

mod apply;
mod fleet;
mod last_good;
mod reporter;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::env::Settings;
use crate::etcd::{Change, Link, Range, follow};
use crate::fusebox::Shared;
use apply::apply;
use last_good::{Document, LastGood};
use reporter::{Reporter, TTL};

/// What works for a [`Fusebox`](crate::Fusebox) in the background, until it is shut down or the
/// runtime ends: layers and commands may outlive every handle.
#[derive(Debug)]
pub(crate) struct Feed {
    stop: CancellationToken,
    /// Closed when the reporter has ended.
    reported: watch::Receiver<bool>,
}

/// How long [`Feed::shutdown`] waits.
const GOODBYE: Duration = Duration::from_secs(2);

impl Feed {
    /// Starts to follow and to report.
    pub(crate) fn start(settings: &Settings, etcd: impl Link, shared: &Arc<Shared>) -> Self {
        let stop = CancellationToken::new();
        let (good, kept) = watch::channel(None);
        let mut newest = None;
        if let Some(file) = LastGood::of(settings) {
            newest = file.apply(shared);
            tokio::spawn(file.keep(kept, stop.clone()));
        }
        let (first, reported) = watch::channel(false);
        let key = settings.keys.policy(&settings.service);
        let followed = follow(etcd.clone(), Range::Key(key));
        let report = Reporter::new(settings, etcd.clone(), Arc::clone(shared));
        tokio::spawn(report.run(stop.clone(), first));
        let count = settings.keys.fleet(&settings.service);
        let fleet = fleet::run(etcd, count, Arc::clone(shared));
        tokio::spawn(stop.clone().run_until_cancelled_owned(fleet));
        let policies = run(followed, reported.clone(), Arc::clone(shared), newest, good);
        tokio::spawn(stop.clone().run_until_cancelled_owned(policies));
        Self { stop, reported }
    }

    /// Ends all tasks and waits until the report is taken back.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let mut reported = self.reported.clone();
        let ended = async { while reported.changed().await.is_ok() {} };
        if timeout(GOODBYE, ended).await.is_err() {
            tracing::warn!("the report could not be taken back, it ends with its lease");
        }
    }
}

/// Puts policies in force as they come.
async fn run(
    mut policies: crate::etcd::Follow,
    mut reported: watch::Receiver<bool>,
    shared: Arc<Shared>,
    mut newest: Document,
    good: watch::Sender<Document>,
) {
    // A report of before, if it could not be replaced, has ended by then with its lease.
    let mut first = pin!(timeout(2 * TTL, reported.wait_for(|reported| *reported)));
    loop {
        tokio::select! {
            _ = &mut first => break,
            () = shared.registered.notified() => again(&shared, newest.as_ref(), &good),
        }
    }
    let mut connected = policies.connected();
    loop {
        shared.counts.connected.store(u64::from(*connected.borrow_and_update()), Ordering::Relaxed);
        tokio::select! {
            change = policies.next() => match change {
                Some(change) => newest = take(&shared, change, &good),
                None => return,
            },
            () = shared.registered.notified() => again(&shared, newest.as_ref(), &good),
            Ok(()) = connected.changed() => {}
        }
    }
}

/// Descriptors came: the newest document may no longer be refused.
fn again(shared: &Shared, newest: Option<&Arc<Vec<u8>>>, good: &watch::Sender<Document>) {
    if let Some(document) = newest
        && apply(shared, document)
    {
        good.send_replace(Some(Arc::clone(document)));
    }
}

/// The newest document, if there is one.
fn take(shared: &Shared, change: Change, good: &watch::Sender<Document>) -> Document {
    let document = match change {
        Change::Snapshot(entries) => entries.into_values().next(),
        Change::Put { entry, .. } => Some(entry),
        Change::Delete { .. } => None,
    };
    let Some(entry) = document else {
        tracing::warn!("there is no policy in etcd: what is in force stays");
        return None;
    };
    let document = Arc::new(entry.value);
    if apply(shared, &document) {
        good.send_replace(Some(Arc::clone(&document)));
    }
    Some(document)
}

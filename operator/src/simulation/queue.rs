//! What kube's controller does, in a few lines: each resource once at a time, the earliest of what was asked for, so
//! many passes at once.

use std::collections::{BTreeMap, BTreeSet};

use fusebox_policy::keys::Ident;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::place::Place;
use super::view::View;
use crate::app::GRACE;
use crate::leader::End;
use crate::queue::CONCURRENCY;
use crate::reconcile::{Context, Next, reconcile};

/// Reconciles until `stop`.
pub async fn work(
    context: &Context,
    view: &View,
    place: &Place,
    woken: &mut mpsc::UnboundedReceiver<Ident>,
    mut stop: watch::Receiver<bool>,
) -> End {
    let mut due: BTreeMap<Ident, Instant> = BTreeMap::new();
    let mut busy: BTreeSet<Ident> = BTreeSet::new();
    let mut running: FuturesUnordered<BoxFuture<'_, (Ident, Next)>> = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let free = usize::from(CONCURRENCY).saturating_sub(busy.len());
        let ready = due.iter().filter(|(of, at)| **at <= now && !busy.contains(of));
        let ready: Vec<Ident> = ready.map(|(of, _)| of.clone()).take(free).collect();
        for of in ready {
            due.remove(&of);
            let Some(resource) = view.get(&of) else { continue };
            busy.insert(of.clone());
            running
                .push(Box::pin(async move { (of, reconcile(context, &resource, place.wall()).await.next) }));
        }
        let next = due.iter().filter(|(of, _)| !busy.contains(of)).map(|(_, at)| *at).min();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(of) = woken.recv() => { due.insert(of, Instant::now()); }
            Some((of, next)) = running.next() => {
                busy.remove(&of);
                if let Next::After(wait) = next {
                    let again = Instant::now() + wait;
                    due.entry(of).and_modify(|at| *at = again.min(*at)).or_insert(again);
                }
            }
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
    let drained = timeout(GRACE, async { while running.next().await.is_some() {} }).await;
    if drained.is_ok() { End::Drained } else { End::CutOff }
}

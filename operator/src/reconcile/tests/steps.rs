//! Passes that are polled step by step: every operation is a point where one can be left or another go on.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use jiff::Timestamp;

use super::scene::Scene;
use crate::reconcile::{Context, reconcile};

/// A pass under way.
pub type Pass<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A pass on what the watches show now.
pub fn pass<'a>(context: &'a Context, scene: &Scene, of: &Ident, now: Timestamp) -> Pass<'a> {
    passes(context, scene.shown(of).into_iter().collect(), now)
}

/// One pass after the other over all that the watches show now.
pub fn round<'a>(context: &'a Context, scene: &Scene, now: Timestamp) -> Pass<'a> {
    let all = scene.cluster.shown().resources.into_values().map(Arc::new).collect();
    passes(context, all, now)
}

fn passes(context: &Context, all: Vec<Arc<ResilientService>>, now: Timestamp) -> Pass<'_> {
    Box::pin(async move {
        for resource in &all {
            reconcile(context, resource, now).await;
        }
    })
}

/// Goes on until it waited `n` times. True: it is done.
pub async fn steps(pass: &mut Pass<'_>, n: usize) -> bool {
    let mut left = n;
    poll_fn(|task| {
        if left == 0 {
            return Poll::Ready(false);
        }
        match pass.as_mut().poll(task) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => {
                left -= 1;
                if left == 0 { Poll::Ready(false) } else { Poll::Pending }
            }
        }
    })
    .await
}

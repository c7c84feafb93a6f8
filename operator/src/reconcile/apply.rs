//! Carries out a plan, each plane by itself: the first effect that fails ends its plane and no other.
//!
//! [`Applied`] can be made here only, so that a status is about what was done and never about what was hoped.

use crate::epoch::{FenceError, Fenced};
use crate::metrics::{Backend, EffectKind, EffectResult};
use crate::ports::{Answer, CatalogOp, ConsulCatalog, EpochStore, Fence, TxnError, Unavailable};
use fusebox_policy::wire::Claim;

use super::Context;
use super::conditions::{Obstacle, reasons};
use super::observe::Snapshot;
use super::plan::{Effect, PerPlane, Plan, route_obstacle};

/// How often a transaction is tried again after its fence moved.
const REFENCED: usize = 3;

/// What was done of a plan.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What kept a plane from being done.
    obstacles: PerPlane<Vec<Obstacle>>,
    /// How many effects took place.
    done: usize,
}

impl Applied {
    /// What kept a plane from being done; empty: it is as desired.
    pub fn obstacles(&self) -> &PerPlane<Vec<Obstacle>> {
        &self.obstacles
    }

    /// How many effects took place.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Is it of use to try again soon?
    pub fn is_transient(&self) -> bool {
        self.all().any(|obstacle| obstacle.transient)
    }

    /// Every obstacle.
    pub fn all(&self) -> impl Iterator<Item = &Obstacle> {
        let PerPlane { catalog, routes, store } = &self.obstacles;
        catalog.iter().chain(routes).chain(store)
    }
}

/// Carries out `plan`.
pub async fn apply(context: &Context, seen: &Snapshot, plan: Plan) -> Applied {
    let mut obstacles = plan.obstacles;
    let mut stopped = PerPlane::<bool>::default();
    let mut done = 0;
    for effect in plan.effects {
        let (kind, backend, stop, found) = match &effect {
            Effect::Catalog(_) => {
                (EffectKind::Catalog, Backend::Consul, &mut stopped.catalog, &mut obstacles.catalog)
            }
            Effect::ApplyRoute(_) | Effect::DeleteRoute(_) => {
                (EffectKind::Route, Backend::Kubernetes, &mut stopped.routes, &mut obstacles.routes)
            }
            Effect::Store(_) => (EffectKind::Store, Backend::Etcd, &mut stopped.store, &mut obstacles.store),
        };
        if *stop {
            continue;
        }
        let outdated = match backend {
            // Routes have no fence of their own.
            Backend::Kubernetes => context.outdated(seen).await,
            Backend::Consul | Backend::Etcd => context.deposed(),
        };
        if let Some(why) = outdated {
            found.push(Obstacle::transient(unavailable(backend), why));
            *stop = true;
            continue;
        }
        match carry_out(context, seen, effect).await {
            Ok(refused) => {
                done += 1;
                context.metrics.effect(kind, EffectResult::Done);
                found.extend(refused);
            }
            Err(obstacle) => {
                context.metrics.effect(kind, EffectResult::Failed);
                context.metrics.backend_error(backend);
                found.push(obstacle);
                *stop = true;
            }
        }
    }
    Applied { obstacles, done }
}

fn unavailable(backend: Backend) -> &'static str {
    match backend {
        Backend::Consul => reasons::CONSUL_UNAVAILABLE,
        Backend::Etcd => reasons::ETCD_UNAVAILABLE,
        Backend::Kubernetes => reasons::KUBERNETES_UNAVAILABLE,
    }
}

/// What was refused of an effect that took place, or why it did not.
async fn carry_out(context: &Context, seen: &Snapshot, effect: Effect) -> Result<Vec<Obstacle>, Obstacle> {
    match effect {
        Effect::Catalog(ops) => catalog(&context.consul, &seen.node, ops).await,
        Effect::Store(ops) => {
            let claim = Claim { cluster: context.settings.cluster.clone(), uid: seen.uid.clone() };
            let fenced = &context.etcd;
            let result = fence_and(fenced, |fence| fenced.store.transact(fence, &claim, &ops)).await;
            result.map(|()| Vec::new()).map_err(|error| match error {
                TxnError::Refused(refused) => {
                    let why: Vec<String> = refused.into_iter().map(|(_, why)| why).collect();
                    Obstacle::transient(reasons::ETCD_REFUSED, why.join("; "))
                }
                error => Obstacle::transient(reasons::ETCD_UNAVAILABLE, error.to_string()),
            })
        }
        Effect::ApplyRoute(route) => {
            let done = context.routes.apply(&seen.owner(), &route).await;
            done.map(|()| Vec::new()).map_err(|error| route_obstacle(&error))
        }
        Effect::DeleteRoute(name) => {
            let done = context.routes.delete(&seen.owner(), &name).await;
            done.map(|()| Vec::new()).map_err(|error| route_obstacle(&error))
        }
    }
}

/// One transaction on a node; an operation that Consul refuses is taken out and the others go on.
pub async fn catalog(
    fenced: &Fenced<dyn ConsulCatalog>,
    node: &str,
    mut ops: Vec<CatalogOp>,
) -> Result<Vec<Obstacle>, Obstacle> {
    let mut refused_so_far = Vec::new();
    while !ops.is_empty() {
        match fence_and(fenced, |fence| fenced.store.transact(fence, node, &ops)).await {
            Ok(()) => break,
            Err(TxnError::Refused(refused)) if refused.iter().any(|(at, _)| *at < ops.len()) => {
                for (_, why) in &refused {
                    refused_so_far.push(Obstacle::transient(
                        reasons::CONSUL_REFUSED,
                        format!("Consul refused an entry and took the others: {why}"),
                    ));
                }
                let mut at = 0;
                ops.retain(|_| {
                    at += 1;
                    !refused.iter().any(|(refused, _)| *refused == at - 1)
                });
            }
            Err(error) => return Err(Obstacle::transient(reasons::CONSUL_UNAVAILABLE, error.to_string())),
        }
    }
    Ok(refused_so_far)
}

/// Runs a transaction at the current fence, again where the fence moved and still is ours.
pub async fn fence_and<'a, S: EpochStore + ?Sized>(
    fenced: &Fenced<S>,
    transact: impl Fn(Fence) -> Answer<'a, Result<(), TxnError>>,
) -> Result<(), TxnError> {
    let unavailable = |error: FenceError| TxnError::Unavailable(Unavailable(error.to_string()));
    let mut fence = fenced.fence().await.map_err(unavailable)?;
    for _ in 0..REFENCED {
        match transact(fence).await {
            Err(TxnError::Fenced) => fence = fenced.refused(fence).await.map_err(unavailable)?,
            done => return done,
        }
    }
    Err(TxnError::Fenced)
}

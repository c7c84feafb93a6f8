//! One resource, from what is declared to what is applied and told:
//! `observe -> validate -> desired -> plan -> apply -> status`.
//!
//! `observe` and `apply` touch the world through [`crate::ports`]; the steps between are pure.

pub mod apply;
pub mod backoff;
pub mod cleanup;
pub mod conditions;
pub mod deletions;
pub mod desired;
pub mod enforcement;
pub mod holds;
pub mod keep;
pub mod memory;
pub mod observe;
mod outliers;
pub mod plan;
mod shadow;
mod standing;
pub mod status;
#[cfg(test)]
mod tests;
pub mod unreadable;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::v1alpha1::{FINALIZER, ResilientService, ResilientServiceStatus};
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::claims;
use crate::epoch::{FenceError, Fenced};
use crate::metrics::{Backend, Metrics, Outcome};
use crate::model;
use crate::ports::{ClusterState, ConsulCatalog, Finalizer, PolicyStore, RouteStore, Standing, Unavailable};
use conditions::{reasons, types};
use deletions::Deletions;
use memory::Memory;
use observe::Snapshot;
use plan::Direction;
use validate::{AllowedPrefixes, Refusal, Valid};

/// How often a resource is looked at when nothing happens, if there are no more than 1,000: what somebody changed behind
/// our back, unseen by the watches, is noticed within this.
pub const RESYNC: Duration = Duration::from_secs(30);

/// When one that waits for another looks again, if that one's pass is under way: what it lets go of may be told by the
/// watches before the write has its answer, and nobody tells after that. Later and later, where it is so for long.
const SETTLES: Duration = Duration::from_secs(1);

/// When deletions are looked at again that their budget holds: it has a window, and others that draw on it.
const HELD: Duration = Duration::from_secs(10);

/// How long a pass for each resource takes at least, where they are many: Consul goes through a sixteenth of all entries
/// for each, which with 10,000 of them and a pass every 10 ms kept a core of it busy.
const RESYNC_EACH: Duration = Duration::from_millis(30);

/// How often each of so many resources is looked at when nothing happens.
fn resync(resources: usize) -> Duration {
    RESYNC.max(RESYNC_EACH.saturating_mul(u32::try_from(resources).unwrap_or(u32::MAX)))
}

/// What the pure steps need to know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// This cluster's name in Consul and etcd.
    pub cluster: String,
    /// Which raw etcd keys each namespace may use.
    pub allowed: AllowedPrefixes,
    /// Are orphans removed however many they are?
    pub remove_all_orphans: bool,
}

/// Everything a reconciliation works with.
pub struct Context {
    /// What the pure steps need to know.
    pub settings: Settings,
    /// Kubernetes.
    pub cluster: Arc<dyn ClusterState>,
    /// Consul.
    pub consul: Fenced<dyn ConsulCatalog>,
    /// etcd.
    pub etcd: Fenced<dyn PolicyStore>,
    /// Traefik.
    pub routes: Arc<dyn RouteStore>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// What is remembered of each resource between reconciliations.
    pub memory: Memory,
    /// What may be deleted though nobody said so.
    pub deletions: Deletions,
}

impl Context {
    /// Why this process is no longer the writer, if another took over or may have.
    pub fn deposed(&self) -> Option<String> {
        // The stores' fences share these signals.
        let signals = self.etcd.signals();
        let why = signals.deposed.borrow().clone();
        why.or_else(|| (!signals.tenure.holds()).then(|| FenceError::NotLeading.to_string()))
    }

    /// Why a write to Kubernetes, which has no fence, must not take place now: one of the stores that answered is
    /// asked just before. Of one that was restored, what this pass saw is worth nothing.
    async fn outdated(&self, seen: &Snapshot) -> Option<String> {
        let asked = match (&seen.store, &seen.catalog) {
            _ if self.deposed().is_some() => Ok(()),
            (Ok(_), _) => self.etcd.verify().await,
            (_, Ok(_)) => self.consul.verify().await,
            _ => Ok(()),
        };
        match asked {
            Err(restored @ FenceError::Restored) => Some(restored.to_string()),
            _ => self.deposed(),
        }
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After this, if nothing happens before.
    After(Duration),
    /// When something happens.
    OnChange,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When to look again.
    pub next: Next,
    /// For the metrics.
    pub outcome: Outcome,
    /// How many writes to Consul, Traefik and etcd took place.
    pub effects: usize,
}

/// One pass. It never fails: what is in the way is in the status, and in how soon it is tried again.
pub async fn reconcile(context: &Context, resource: &Arc<ResilientService>, now: Timestamp) -> Done {
    let start = Instant::now();
    let shown = resource;
    let resource = context.memory.newest(shown).await;
    if resource.metadata.deletion_timestamp.is_some() {
        return cleanup::clean_up(context, &resource, now).await;
    }
    // Before the first write, so that nothing is ever applied that would not be cleared.
    if !has_finalizer(&resource) {
        match context.cluster.set_finalizer(&resource, true).await {
            Ok(Finalizer::Set) => {}
            // What the cache shows is over: whatever took its place wakes us.
            Ok(Finalizer::Gone) => {
                return Done { next: Next::OnChange, outcome: Outcome::cleaned, effects: 0 };
            }
            Err(error) => return trouble(context, &resource, &error).await,
        }
    }
    let mut seen = observe::observe(context, &resource).await;
    let judged = judge(context, &mut seen).await;
    let mut desired = desired::desired(&context.settings.cluster, &seen, &judged);
    deletions::hold(context, &seen, &mut desired).await;
    let plan = plan::plan(&context.settings.cluster, &seen, &desired, Direction::Converge);
    // The watches may be behind, as at the start of a process: what they show next wakes us.
    let behind = Done { next: Next::After(RESYNC), outcome: Outcome::retry, effects: 0 };
    if !plan.effects.is_empty() {
        match standing::standing(context, &resource).await {
            Ok(Standing::AsShown) => {}
            Ok(Standing::Edited) => return behind,
            Ok(Standing::Gone) => {
                return Done { next: Next::OnChange, outcome: Outcome::cleaned, effects: 0 };
            }
            Err(error) => return trouble(context, &resource, &error).await,
        }
    }
    if judged.is_ok() && !plan.effects.is_empty() {
        match take(context, &seen, &resource).await {
            Ok(true) => {}
            Ok(false) => {
                context.memory.doubt(&resource).await;
                return behind;
            }
            Err(error) => return trouble(context, &resource, &error).await,
        }
    }
    let applied = apply::apply(context, &seen, plan).await;
    // Effects take their time, and a backend's silence takes more: what is told is told of the newest reports.
    seen.reports = context.etcd.store.reports(&seen.ident);
    let mut status = status::status(&seen, &judged, &desired, &applied, now);
    outliers::tell(&mut status, &seen, &desired, |name| context.etcd.store.outliers(name));
    context.metrics.enforcement(&seen.ident, &status);
    let wanted = judged.as_ref().ok().map(|valid| valid.policy.hash.as_str());
    let told = match arriving(context, &resource, &status, wanted, start).await {
        Some(wait) => Ok(Some(wait)),
        None => tell(context, &seen, &resource, &status).await,
    };
    let (outcome, wait) = match (&told, applied.is_transient()) {
        (Err(_), _) => (Outcome::retry, context.memory.failed(&resource).await),
        // A status that waits to be written does not wait for a backend that is gone.
        (Ok(wait), true) => {
            let again = context.memory.failed(&resource).await;
            (Outcome::retry, wait.map_or(again, |wait| wait.min(again)))
        }
        (Ok(wait), false) => {
            context.memory.succeeded(&resource).await;
            let (is_held, in_the_way) = (deletions::is_held(&desired), applied.all().next().is_some());
            let blocked = judged.is_err() || in_the_way || is_held;
            let unsettled = context.memory.unsettled(&resource, seen.rivals.unsettled).await;
            let soonest = [
                *wait,
                unsettled,
                is_held.then_some(HELD),
                // Nothing may tell that it is out of the way.
                in_the_way.then_some(RESYNC),
                // Somebody else wrote it since: what this process wrote itself is believed first, and repaired then.
                (claims::held(shown) != claims::held(&resource)).then_some(memory::CACHE_LAG),
            ];
            let soonest = soonest.into_iter().flatten().min();
            (
                if blocked { Outcome::blocked } else { Outcome::converged },
                soonest.unwrap_or_else(|| resync(context.cluster.count())),
            )
        }
    };
    Done { next: Next::After(wait), outcome, effects: applied.done() }
}

/// How often a pass looks at the others again before it gives way to them.
const LOOKS: usize = 3;

/// Judges, and takes what an accepted resource asks for: between the look at the others and this, a pass beside
/// this one may have taken it.
async fn judge(context: &Context, seen: &mut Snapshot) -> Result<Valid, Refusal> {
    let live = || context.cluster.resources().iter().filter_map(|resource| resource.uid()).collect();
    for _ in 0..LOOKS {
        let judged = validate::validate(seen, &context.settings.allowed);
        if judged.is_err() || context.memory.take(&seen.resource, live).await {
            return judged;
        }
        seen.rivals = observe::rivals(context, &seen.resource).await;
    }
    let message = "other resources take the same at this moment; it is looked at again".to_owned();
    Err(Refusal { reason: reasons::CONFLICT, message, lost: seen.rivals.lost.clone() })
}

/// Says in the status what is about to be applied, where that is new. False: the watches are behind, and another one
/// may have it.
async fn take(context: &Context, seen: &Snapshot, told: &ResilientService) -> Result<bool, Unavailable> {
    let Some(status) = holds::taking(seen, told) else { return Ok(true) };
    if let Some(why) = context.outdated(seen).await {
        return Err(Unavailable(why));
    }
    // A cache that lags may not show yet what those have taken who were passed over.
    for other in &seen.rivals.waiting {
        if context.cluster.standing(other).await? != Standing::AsShown {
            return Ok(false);
        }
    }
    context.cluster.write_status(told, &status).await?;
    Ok(true)
}

/// Is our finalizer on it?
fn has_finalizer(resource: &ResilientService) -> bool {
    resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Kubernetes itself is in trouble: nothing can be told, only tried again.
async fn trouble(context: &Context, resource: &ResilientService, error: &Unavailable) -> Done {
    tracing::warn!(resource = %model::ident(resource), %error, "Kubernetes did not take a write; trying again");
    context.metrics.backend_error(Backend::Kubernetes);
    let next = Next::After(context.memory.failed(resource).await);
    Done { next, outcome: Outcome::retry, effects: 0 }
}

/// How long the instances have to report a new policy before the status says that they do not run it yet: the
/// usual change is one write, not two a second apart.
const ARRIVING: Duration = Duration::from_millis(250);

/// Follows a policy on its way to the instances. Some: its status can wait.
async fn arriving(
    context: &Context,
    resource: &ResilientService,
    status: &ResilientServiceStatus,
    wanted: Option<&str>,
    start: Instant,
) -> Option<Duration> {
    let enforced = status.conditions.iter().find(|condition| condition.type_ == types::ENFORCED)?;
    let is_true = enforced.status == "True";
    if let Some(took) = context.memory.policy(resource, wanted?, start, is_true).await {
        context.metrics.propagated(took);
    }
    let before = resource.status.as_ref()?;
    let is_new = before.observed_generation != status.observed_generation && before.claims == status.claims;
    if !is_new || enforced.reason != reasons::APPLYING {
        return None;
    }
    let so_far = context.memory.put_off(resource).await;
    ARRIVING.checked_sub(so_far).filter(|wait| !wait.is_zero())
}

/// Writes the status and its Events, if it changed; some wait, if it was written too recently.
async fn tell(
    context: &Context,
    seen: &Snapshot,
    resource: &ResilientService,
    status: &ResilientServiceStatus,
) -> Result<Option<Duration>, Unavailable> {
    if resource.status.as_ref() == Some(status) {
        context.memory.still_holds(resource, status).await;
        return Ok(None);
    }
    // What an old view does not show would be lost.
    if standing::standing(context, resource).await? != Standing::AsShown {
        return Ok(Some(RESYNC));
    }
    // What is held must be known at once: others decide by it.
    let held = |status: &ResilientServiceStatus| status.claims.clone();
    let urgent = resource.status.as_ref().map(held).unwrap_or_default() != status.claims;
    if !urgent && let Some(wait) = context.memory.status_wait(resource).await {
        return Ok(Some(wait));
    }
    if let Some(why) = context.outdated(seen).await {
        return Err(Unavailable(why));
    }
    if let Err(error) = context.cluster.write_status(resource, status).await {
        tracing::warn!(resource = %model::ident(resource), %error, "the status could not be written; trying again");
        context.metrics.backend_error(Backend::Kubernetes);
        return Err(error);
    }
    context.memory.wrote(resource, status).await;
    context.memory.holds(resource, status).await;
    for notice in status::notices(resource.status.as_ref(), status) {
        tracing::info!(
            resource = %model::ident(resource), condition = notice.action, reason = notice.reason, "{}", notice.message
        );
        context.cluster.notify(resource, &notice).await;
    }
    Ok(None)
}

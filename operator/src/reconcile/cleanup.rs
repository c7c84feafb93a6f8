//! A resource on its way out: etcd, routes and Consul are cleared of it, then its finalizer goes.
//!
//! # Guarantees
//! - It ends: by success, or by the annotation that abandons what cannot be reached.

use std::sync::Arc;

use fusebox_policy::v1alpha1::{ABANDON_ANNOTATION, ResilientService};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::apply::{Applied, apply};
use super::conditions::{reasons, types};
use super::desired::Desired;
use super::observe::observe;
use super::plan::{Direction, plan};
use super::{Context, Done, Next, has_finalizer, tell, trouble};
use crate::metrics::Outcome;
use crate::model;
use crate::ports::{Notice, Standing};

/// One pass.
pub async fn clean_up(context: &Context, resource: &Arc<ResilientService>, now: Timestamp) -> Done {
    let gone = |effects| Done { next: Next::OnChange, outcome: Outcome::cleaned, effects };
    if !has_finalizer(resource) {
        return gone(0);
    }
    let seen = observe(context, resource).await;
    let plan = plan(&context.settings.cluster, &seen, &Desired::nothing(), Direction::Remove);
    // What is cleared by name may be another's of the same name by now, which the watches do not show yet.
    if !plan.effects.is_empty() {
        match context.cluster.standing(resource).await {
            Ok(Standing::AsShown | Standing::Edited) => {}
            Ok(Standing::Gone) => {
                context.memory.forget(resource).await;
                return gone(0);
            }
            Err(error) => return trouble(context, resource, &error).await,
        }
    }
    let applied = apply(context, &seen, plan).await;
    let mut why: Vec<String> = applied.all().map(|obstacle| obstacle.message.clone()).collect();
    let abandoned = resource.annotations().get(ABANDON_ANNOTATION).is_some_and(|value| value == "true");
    if why.is_empty() && !abandoned {
        // A store that was restored meanwhile has again what was cleared, and nobody will look for it.
        let stores = tokio::join!(context.consul.verify(), context.etcd.verify());
        why.extend([stores.0, stores.1].into_iter().filter_map(Result::err).map(|error| error.to_string()));
    }
    if why.is_empty() || abandoned {
        if !why.is_empty() {
            let notice = Notice {
                warning: true,
                reason: reasons::CLEANUP_ABANDONED.to_owned(),
                action: "CleanUp".to_owned(),
                message: left_behind(&context.settings.cluster, &seen.node, resource, &applied),
            };
            tracing::warn!(resource = %seen.ident, "{}", notice.message);
            context.cluster.notify(resource, &notice).await;
        }
        if let Err(error) = context.cluster.set_finalizer(resource, false).await {
            return trouble(context, resource, &error).await;
        }
        context.memory.forget(resource).await;
        context.deletions.catalog.lock().await.withdraw(&seen.uid);
        context.metrics.forget(&seen.ident);
        tracing::info!(resource = %seen.ident, "cleaned up");
        return gone(applied.done());
    }
    let message = format!(
        "the clean-up waits and is tried again: {}. To give it up: kubectl annotate rsvc -n {} {} {ABANDON_ANNOTATION}=true",
        why.join("; "),
        seen.ident.namespace,
        seen.ident.name
    );
    let mut status = resource.status.clone().unwrap_or_default();
    let before = status.conditions.iter().position(|condition| condition.type_ == types::READY);
    let before = before.map(|at| status.conditions.remove(at));
    let since =
        before.as_ref().filter(|before| before.status == "False").map(|b| b.last_transition_time.clone());
    status.conditions.push(Condition {
        type_: types::READY.to_owned(),
        status: "False".to_owned(),
        reason: reasons::CLEANUP_BLOCKED.to_owned(),
        message: message.clone(),
        observed_generation: resource.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    let first_time = before.is_none_or(|before| before.reason != reasons::CLEANUP_BLOCKED);
    if tell(context, &seen, resource, &status).await.is_ok() && first_time {
        let (reason, action) = (reasons::CLEANUP_BLOCKED.to_owned(), "CleanUp".to_owned());
        tracing::warn!(resource = %model::ident(resource), "{message}");
        context.cluster.notify(resource, &Notice { warning: true, reason, action, message }).await;
    }
    let next = Next::After(context.memory.failed(resource).await);
    Done { next, outcome: Outcome::retry, effects: applied.done() }
}

/// What an abandoned clean-up may leave, and how it is found.
fn left_behind(cluster: &str, node: &str, of: &ResilientService, applied: &Applied) -> String {
    let ident = model::ident(of);
    let mut left = Vec::new();
    if !applied.obstacles().catalog.is_empty() {
        left.push(format!(
            "Consul: entries on node {node} with meta fusebox-owner={}",
            of.uid().unwrap_or_default()
        ));
    }
    if !applied.obstacles().store.is_empty() {
        left.push(format!(
            "etcd: /fusebox/v1/{cluster}/{{policy,config,fleet,raw}}/{ident}, its raw keys and their claims"
        ));
    }
    if !applied.obstacles().routes.is_empty() {
        left.push(format!(
            "Traefik: IngressRoutes labelled fusebox.dev/service={} (Kubernetes removes them)",
            ident.name
        ));
    }
    format!("the clean-up was abandoned; this may stay: {}", left.join("; "))
}

//! What a resource holds: its status keeps it from all others. Pure.

use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};

use super::apply::Applied;
use super::desired::Desired;
use super::observe::Snapshot;
use super::validate::{Refusal, Valid};
use crate::claims::{self, Claim};

/// What the accepted spec asks for, and what was held before until it is released.
pub fn holds(
    seen: &Snapshot,
    judged: &Result<Valid, Refusal>,
    desired: &Desired,
    applied: &Applied,
) -> Vec<String> {
    let obstacles = applied.obstacles();
    // What was to be removed is removed. Where an accepted spec is blocked, what was there is desired.
    let cleared = |blocked: bool, obstacles: &[_]| obstacles.is_empty() && !(judged.is_ok() && blocked);
    let catalog = cleared(desired.catalog.blocked.is_some(), &obstacles.catalog);
    let routes = cleared(desired.routes.blocked.is_some(), &obstacles.routes);
    let store = cleared(desired.store.blocked.is_some(), &obstacles.store);
    let cleared = |claim: &Claim| match claim {
        Claim::ConsulName(_) => catalog,
        Claim::Route(..) | Claim::Host(_) => routes,
        Claim::RawKey(_) => store,
        Claim::Service(_) => catalog && routes,
    };
    let kept = |claim: &Claim| match judged {
        Ok(_) => !cleared(claim),
        Err(refusal) => !cleared(claim) || !refusal.lost.iter().any(|lost| lost.claim == *claim),
    };
    let asked = judged.is_ok().then(|| claims::asked(&seen.resource));
    let before = claims::held(&seen.resource).into_iter().filter(kept);
    claims::listed(asked.into_iter().flatten().chain(before))
}

/// The status that takes what an accepted spec asks for, to be written before any of it is applied: a process that
/// dies between the two must leave nothing in place that no status names. None: it names all of it already.
pub fn taking(seen: &Snapshot, told: &ResilientService) -> Option<ResilientServiceStatus> {
    let mut status = told.status.clone().unwrap_or_default();
    let asked = claims::asked(&seen.resource);
    let claims = claims::listed(asked.into_iter().chain(claims::held(&seen.resource)));
    if claims.iter().all(|claim| status.claims.contains(claim)) {
        return None;
    }
    status.claims = claims;
    Some(status)
}

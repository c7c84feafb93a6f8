//! What a person is told: a function of what was applied and what the instances report. Pure.

use fusebox_policy::v1alpha1::{Instances, PROCEED_ANNOTATION, ResilientServiceStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::apply::Applied;
use super::conditions::{Obstacle, reasons, types};
use super::deletions::{self, may_proceed};
use super::desired::{Desired, Plane};
use super::enforcement::{self, Enforcement};
use super::holds;
use super::observe::Snapshot;
use super::outliers;
use super::validate::{Refusal, Valid};
use crate::claims;
use crate::ports::Notice;

const TRUE: &str = "True";
const FALSE: &str = "False";

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// True, False or Unknown.
    pub status: &'static str,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

impl Verdict {
    /// It is so.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: TRUE, reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: FALSE, reason, message: message.into() }
    }

    /// Nobody can tell.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason, message: message.into() }
    }

    fn obstacle(of: &Obstacle, more: usize) -> Self {
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        Self::no(of.reason, format!("{}{more}", of.message))
    }
}

/// The status after `applied`.
pub fn status(
    seen: &Snapshot,
    judged: &Result<Valid, Refusal>,
    desired: &Desired,
    applied: &Applied,
    now: Timestamp,
) -> ResilientServiceStatus {
    let old = seen.resource.status.clone().unwrap_or_default();
    let accepted = match judged {
        Ok(_) => Verdict::yes(reasons::ACCEPTED, "valid, and nothing it claims belongs to another"),
        Err(refusal) => Verdict::no(refusal.reason, refusal.message.clone()),
    };
    let registered = registered(seen, desired, applied, &old);
    let routed = routed(seen, desired, applied, &old);
    let published = plane(&desired.store, &applied.obstacles().store, || {
        let raw = desired.store.goal.as_ref().map_or(0, |goal| goal.raw.len());
        let config = desired.store.goal.as_ref().is_some_and(|goal| goal.config.is_some());
        let mut what = vec!["the policy".to_owned()];
        what.extend(config.then(|| "the config document".to_owned()));
        what.extend(
            (raw > 0).then(|| if raw == 1 { "1 raw key".to_owned() } else { format!("{raw} raw keys") }),
        );
        Verdict::yes(reasons::PUBLISHED, format!("in etcd: {}", list(&what)))
    });
    let wanted = judged.as_ref().ok().map(|valid| valid.policy.hash.to_string());
    let hash = enforcement::published(seen, wanted.as_deref(), published.status == TRUE);
    let enforcement = Enforcement::of(seen, hash.as_deref());
    let enforced = if judged.is_err() {
        Verdict::no(
            reasons::NOT_PUBLISHED,
            "this generation is not accepted: the instances run an earlier policy",
        )
    } else if hash != wanted {
        let why = format!("the policy of this generation is not in etcd yet: {}", published.message);
        Verdict::no(reasons::NOT_PUBLISHED, why)
    } else {
        enforcement.verdict()
    };
    let ready = [&accepted, &registered, &routed, &published];
    let names = [types::ACCEPTED, types::REGISTERED, types::ROUTED, types::PUBLISHED];
    let ready = match ready.iter().zip(names).find(|(verdict, _)| verdict.status != TRUE) {
        Some((verdict, name)) => Verdict::no(verdict.reason, format!("{name}: {}", verdict.message)),
        None => Verdict::yes(reasons::READY, "accepted, registered, routed and published"),
    };
    let generation = seen.resource.metadata.generation;
    let conditions = [
        (types::ACCEPTED, accepted),
        (types::REGISTERED, registered),
        (types::ROUTED, routed),
        (types::PUBLISHED, published),
        (types::ENFORCED, enforced),
        (types::READY, ready),
    ];
    let conditions =
        conditions.into_iter().map(|(name, verdict)| condition(&old, name, verdict, generation, now));
    ResilientServiceStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        summary: Some(enforcement.summary()),
        policy_hash: hash,
        instances: Some(Instances {
            ready: enforcement.ready,
            enforcing: enforcement.enforcing,
            rejecting: enforcement.rejecting,
        }),
        open_breakers: enforcement.breakers,
        failures: enforcement.failures,
        // Told on top: nothing here is decided by what callers say.
        outliers: Vec::new(),
        outlier_count: None,
        claims: holds::holds(seen, judged, desired, applied),
    }
}

fn condition(
    old: &ResilientServiceStatus,
    name: &str,
    verdict: Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let since = find(old, name).filter(|old| old.status == verdict.status);
    Condition {
        type_: name.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: clip(verdict.message),
        observed_generation: generation,
        last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
    }
}

/// What is quoted may be long: of instances, of backends.
pub fn clip(mut text: String) -> String {
    const MAX: usize = 2000;
    if let Some((end, _)) = text.char_indices().nth(MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn find<'a>(status: &'a ResilientServiceStatus, name: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == name)
}

/// Why the goal is not what was asked for, else why the goal was not reached, else `good`.
fn plane<T>(plane: &Plane<T>, obstacles: &[Obstacle], good: impl FnOnce() -> Verdict) -> Verdict {
    let mut all = plane.blocked.iter().chain(obstacles);
    match all.next() {
        Some(first) => Verdict::obstacle(first, all.count()),
        None => good(),
    }
}

/// A plane that nothing is asked of is in order even while it cannot be read, unless something may be left
/// there of an earlier generation.
fn nothing_left(old: &ResilientServiceStatus, name: &str) -> bool {
    find(old, name).is_none_or(|old| old.reason == reasons::NOT_REQUESTED)
}

fn registered(
    seen: &Snapshot,
    desired: &Desired,
    applied: &Applied,
    old: &ResilientServiceStatus,
) -> Verdict {
    let obstacles = &applied.obstacles().catalog;
    let not_requested =
        || Verdict::yes(reasons::NOT_REQUESTED, "no consul section: not registered in Consul");
    let is_in_order = obstacles.is_empty() && !deletions::is_held(desired);
    if !desired.catalog.requested && (is_in_order || nothing_left(old, types::REGISTERED)) {
        return not_requested();
    }
    plane(&desired.catalog, obstacles, || {
        let entries = desired.catalog.goal.as_deref().unwrap_or_default();
        let passing = entries.iter().filter(|entry| entry.passing == Some(true)).count();
        let name = claims::consul_name(&seen.resource).unwrap_or_default();
        let message = match entries.len() {
            0 if !seen.endpoints.is_empty() => format!(
                "none of {} instances serves the port, so none is in Consul as {name}: does the Service's \
                 targetPort name a port of the pods?",
                seen.endpoints.len()
            ),
            0 => format!("the Service has no instances, so none is in Consul as {name}"),
            1 => format!("1 instance in Consul as {name}, {passing} passing"),
            n => format!("{n} instances in Consul as {name}, {passing} passing"),
        };
        let message = if may_proceed(&seen.resource) {
            format!("{message}; its deletions have no budget: take the annotation {PROCEED_ANNOTATION} off")
        } else {
            message
        };
        Verdict::yes(reasons::REGISTERED, message)
    })
}

fn routed(seen: &Snapshot, desired: &Desired, applied: &Applied, old: &ResilientServiceStatus) -> Verdict {
    let obstacles = &applied.obstacles().routes;
    if !desired.routes.requested && (obstacles.is_empty() || nothing_left(old, types::ROUTED)) {
        return Verdict::yes(reasons::NOT_REQUESTED, "no gateway section: no routes in Traefik");
    }
    plane(&desired.routes, obstacles, || {
        let routes = seen.resource.spec.gateway.iter().flat_map(|gateway| &gateway.routes);
        let routes: Vec<String> = routes.map(|r| format!("{}{}", r.host, claims::path_of(r))).collect();
        Verdict::yes(reasons::ROUTED, format!("routed in Traefik: {}", list(&routes)))
    })
}

/// The first few, and how many more.
pub fn list(of: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = of.len().saturating_sub(SHOWN);
    let shown = of[..of.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The Events of a change of status: one for each condition that changed in status, or in why it is False, and those
/// of what callers have ejected.
pub fn notices(old: Option<&ResilientServiceStatus>, new: &ResilientServiceStatus) -> Vec<Notice> {
    let changed = |new: &&Condition| {
        let before = old.and_then(|old| find(old, &new.type_));
        match before {
            None => new.reason != reasons::NOT_REQUESTED && new.status != "Unknown",
            Some(before) => {
                before.status != new.status || (new.status == FALSE && before.reason != new.reason)
            }
        }
    };
    // What another condition says already: Ready when it is bad, and all that follows from not being accepted.
    let repeated = |new: &&Condition| {
        (new.type_ == types::READY && new.status != TRUE)
            || [reasons::NOT_ACCEPTED, reasons::NOT_PUBLISHED].contains(&new.reason.as_str())
    };
    let notice = |new: &Condition| Notice {
        warning: new.status == FALSE && new.reason != reasons::APPLYING,
        reason: new.reason.clone(),
        action: new.type_.clone(),
        message: format!("{}: {}", new.type_, new.message),
    };
    let conditions = new.conditions.iter().filter(changed).filter(|new| !repeated(new)).map(notice);
    conditions.chain(outliers::notices(old, new)).collect()
}

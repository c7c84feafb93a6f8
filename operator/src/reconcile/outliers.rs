//! What callers have ejected of a resource's instances, as its status tells it. Pure.
//!
//! # Guarantees
//! - It is told and nothing else: no other step of a pass has it at hand, so no caller can have an instance
//!   deregistered, counted as not ready, or anything written for it but this.
//! - An endpoint is one of the resource's own, found under the name that is the resource's.
//! - An endpoint keeps its time and its reason for as long as it is listed. While reports cannot be read, all stay as
//!   they were told last.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fusebox_policy::v1alpha1::{EjectedEndpoint, ResilientServiceStatus};

use super::desired::Desired;
use super::observe::Snapshot;
use super::status::list;
use crate::model::Entry;
use crate::ports::{Ejected, Notice, Outlier};

/// How many a status lists; the schema's own maximum.
const MAX_LISTED: usize = 16;

/// Sets it in `status`; `of` finds what is reported of a name in Consul, None: it cannot be read.
pub fn tell(
    status: &mut ResilientServiceStatus,
    seen: &Snapshot,
    desired: &Desired,
    of: impl Fn(&str) -> Option<Arc<Ejected>>,
) {
    let old = seen.resource.status.as_ref();
    let before = old.map(|old| old.outliers.as_slice()).unwrap_or_default();
    if let Some(mut all) = listed(seen, desired, of, before) {
        status.outlier_count = Some(count(all.len())).filter(|count| *count > 0);
        all.truncate(MAX_LISTED);
        status.outliers = all;
    } else {
        status.outlier_count = old.and_then(|old| old.outlier_count);
        status.outliers = before.to_vec();
    }
}

/// None: nobody can tell.
fn listed(
    seen: &Snapshot,
    desired: &Desired,
    of: impl Fn(&str) -> Option<Arc<Ejected>>,
    before: &[EjectedEndpoint],
) -> Option<Vec<EjectedEndpoint>> {
    let entries = desired.catalog.goal.as_deref().unwrap_or_default();
    if entries.is_empty() && seen.catalog.is_err() {
        return None;
    }
    let mut found: BTreeMap<&str, Arc<Ejected>> = BTreeMap::new();
    for entry in entries {
        if !found.contains_key(entry.name.as_str()) {
            found.insert(&entry.name, of(&entry.name)?);
        }
    }
    let names: HashMap<&str, &str> =
        seen.endpoints.iter().map(|one| (one.instance.as_str(), one.display.as_str())).collect();
    let mut all: Vec<EjectedEndpoint> = (entries.iter())
        .filter_map(|entry| {
            let outlier = found.get(entry.name.as_str())?.get(&address(entry)?)?;
            let name = names.get(entry.instance()).copied().unwrap_or(&entry.address);
            Some(told(address(entry)?, name, outlier, before))
        })
        .collect();
    all.sort_by(|a, b| (&a.since, &a.endpoint).cmp(&(&b.since, &b.endpoint)));
    Some(all)
}

fn address(entry: &Entry) -> Option<SocketAddr> {
    Some(SocketAddr::new(entry.address.parse::<IpAddr>().ok()?, entry.port))
}

fn told(at: SocketAddr, name: &str, outlier: &Outlier, before: &[EjectedEndpoint]) -> EjectedEndpoint {
    let endpoint = at.to_string();
    let known = before.iter().find(|known| known.endpoint == endpoint);
    EjectedEndpoint {
        since: known.map_or_else(|| format!("{:.0}", outlier.since), |known| known.since.clone()),
        reason: known.map_or_else(|| outlier.reason.clone(), |known| known.reason.clone()),
        endpoint,
        instance: name.to_owned(),
        callers: outlier.callers.iter().map(ToString::to_string).collect(),
        caller_count: count(outlier.services),
        calling_instances: count(outlier.instances),
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// The Events of a change of status: one for all endpoints that are newly listed, one for all that are not any more.
pub fn notices(old: Option<&ResilientServiceStatus>, new: &ResilientServiceStatus) -> Vec<Notice> {
    let before = old.map(|old| old.outliers.as_slice()).unwrap_or_default();
    let beyond = |these: &[EjectedEndpoint], those: &[EjectedEndpoint]| -> Vec<EjectedEndpoint> {
        let is_in = |one: &&EjectedEndpoint| {
            those.iter().any(|other| other.endpoint == one.endpoint && other.instance == one.instance)
        };
        these.iter().filter(|one| !is_in(one)).cloned().collect()
    };
    let (came, went) = (beyond(&new.outliers, before), beyond(before, &new.outliers));
    let mut notices = Vec::new();
    if let Some(first) = came.first() {
        let named: Vec<String> = came.iter().map(named).collect();
        let more = if came.len() == 1 { "" } else { "the first: " };
        let by = by(first);
        let message =
            format!("callers do not call {} for now ({more}{}, by {by})", list(&named), first.reason);
        notices.push(Notice {
            warning: true,
            reason: "Ejected".to_owned(),
            action: "Outliers".to_owned(),
            message,
        });
    }
    if !went.is_empty() {
        let named: Vec<String> = went.iter().map(named).collect();
        notices.push(Notice {
            warning: false,
            reason: "TakenBack".to_owned(),
            action: "Outliers".to_owned(),
            message: format!("callers call {} again, or it is gone", list(&named)),
        });
    }
    notices
}

fn named(one: &EjectedEndpoint) -> String {
    if one.endpoint.starts_with(&one.instance) {
        return one.endpoint.clone();
    }
    format!("{} ({})", one.endpoint, one.instance)
}

fn by(one: &EjectedEndpoint) -> String {
    let more = one.caller_count.saturating_sub(count(one.callers.len()));
    let callers = one.callers.join(", ");
    if more == 0 { callers } else { format!("{callers} and {more} more") }
}

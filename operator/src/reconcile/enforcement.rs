//! Does every ready instance run the published policy? Pure.
//!
//! # Guarantees
//! - True only if there is a ready instance and each one's report, which lives as long as its lease, carries
//!   the hash of the document that is in etcd.
//! - An instance whose code never asked for the server layer does not enforce a policy with an inbound section:
//!   it does not count.
//!
//! # Caveats
//! - A report outlives its instance by at most twice the lease's 10 s.
//! - That an instance stopped reporting is known to the process that saw its report; after a restart of the
//!   operator it counts as one that never did.
//! - An operator whose first reading comes within a lease's life after etcd started cannot know of the start, which
//!   gave every lease its whole time anew: it believes reports of before until those leases end.
//! - A library from before reports told of the server layer is believed to have it.

use std::collections::BTreeMap;

use fusebox_policy::policy::Inbound;
use fusebox_policy::v1alpha1::{Failure, OpenBreaker, Summary};
use fusebox_policy::wire::{BreakerState, PolicyDocument, PolicyHash, Report};
use fusebox_policy::{Policy, merge};
use jiff::Timestamp;

use super::conditions::reasons;
use super::observe::Snapshot;
use super::shadow;
use super::status::{Verdict, clip, list};
use crate::ports::Reported;

/// How many breakers and failures a status names; the schema's own maximum.
const MAX_LISTED: usize = 16;
/// How many different breakers the summary names.
const MAX_SUMMARY: usize = 3;
/// How many reasons for a rejection a condition names.
const MAX_REASONS: usize = 3;

/// The reason of an instance that runs a policy with an inbound section and has no server layer to hold
/// requests to it.
const NOT_ATTACHED: &str = "NotAttached";

/// What the instances of a resource do.
#[derive(Clone, Debug, Default)]
pub struct Enforcement {
    /// Instances that should get traffic.
    pub ready: u32,
    /// Of these, the ones that run the published policy.
    pub enforcing: u32,
    /// Of these, the ones that refuse it.
    pub rejecting: u32,
    /// Breakers that are not closed.
    pub breakers: Vec<OpenBreaker>,
    /// Instances that do not enforce and why.
    pub failures: Vec<Failure>,
    reporting: u32,
    /// Of these, the ones that run the published policy without the server layer that its inbound section needs.
    unattached: u32,
    unreadable: bool,
    rejections: Vec<String>,
    stale: Vec<String>,
    open: BTreeMap<(String, &'static str), u32>,
    shadow: Option<String>,
}

/// The hash of the policy document in etcd, as far as it is known.
pub fn published(seen: &Snapshot, wanted: Option<&str>, is_published: bool) -> Option<String> {
    let there = || {
        let document = seen.store.as_ref().ok()?.policy.as_ref()?;
        Some(PolicyDocument::from_json(document.as_bytes()).ok()?.hash.to_string())
    };
    let before = || seen.resource.status.as_ref()?.policy_hash.clone();
    match wanted {
        Some(wanted) if is_published => Some(wanted.to_owned()),
        _ if seen.store.is_ok() => there(),
        _ => before(),
    }
}

/// Does the policy of this hash hold requests to anything? It is the one in etcd or the one of the resource.
fn needs_server_layer(seen: &Snapshot, hash: Option<&str>) -> bool {
    let published = seen.store.as_ref().ok().and_then(|store| store.policy.as_deref());
    let published = published.and_then(|json| PolicyDocument::from_json(json.as_bytes()).ok());
    let published = published.map(|document| document.policy());
    let declared = || merge::policy(&seen.resource.spec).ok();
    let is_meant = |policy: &Policy| hash == Some(PolicyHash::of(policy).as_str());
    let policy = published.filter(is_meant).or_else(|| declared().filter(is_meant));
    policy.is_some_and(|policy| policy.inbound != Inbound::default())
}

impl Enforcement {
    /// From the instances and their reports.
    pub fn of(seen: &Snapshot, hash: Option<&str>) -> Self {
        let mut all = Self { unreadable: seen.reports.is_none(), ..Self::default() };
        let layer = needs_server_layer(seen, hash);
        let none = Reported::default();
        let Reported { live: reports, ended } = seen.reports.as_ref().unwrap_or(&none);
        for endpoint in seen.endpoints.iter().filter(|endpoint| endpoint.ready) {
            all.ready += 1;
            match (reports.get(&endpoint.instance), ended.get(&endpoint.instance)) {
                (Some(report), _) => all.instance(&endpoint.display, report, hash, layer),
                (None, Some(at)) => all.is_stale(&endpoint.display, *at),
                (None, None) => all.fail(
                    &endpoint.display,
                    "NoReport",
                    "ready, but does not report: is it built with the fusebox library and can it reach etcd?",
                ),
            }
        }
        for report in reports.values() {
            all.breakers_of(report);
        }
        let same = |report: &&Report| hash.is_some() && report.hash.as_ref().map(PolicyHash::as_str) == hash;
        all.shadow = shadow::summary(reports.values().filter(same).flat_map(|report| &report.shadow));
        if all.reporting == 0 && all.stale.is_empty() {
            // A service without the library: one condition says it, not a line for each instance.
            all.failures.clear();
        }
        all.breakers.sort_by(|a, b| (&a.command, &a.instance).cmp(&(&b.command, &b.instance)));
        all.breakers.truncate(MAX_LISTED);
        all.failures.sort_by(|a, b| (&a.instance, &a.reason).cmp(&(&b.instance, &b.reason)));
        all.failures.truncate(MAX_LISTED);
        all
    }

    fn fail(&mut self, instance: &str, reason: &str, message: impl Into<String>) {
        self.failures.push(Failure {
            instance: instance.to_owned(),
            reason: reason.to_owned(),
            message: clip(message.into()),
        });
    }

    fn is_stale(&mut self, name: &str, since: Timestamp) {
        self.stale.push(name.to_owned());
        self.fail(
            name,
            reasons::STALE,
            format!(
                "ready, but its report ended at {since:.0}: does the process hang, or can it not reach etcd? (One that \
                 cannot be read is in the operator's log.) It may run any policy"
            ),
        );
    }

    fn instance(&mut self, name: &str, report: &Report, hash: Option<&str>, layer: bool) {
        self.reporting += 1;
        for command in &report.unknown_commands {
            self.fail(
                name,
                "UnknownCommand",
                format!(
                    "the code calls the command {command}, which no policy names: it runs with the section's \
                     policy; correct the code, or add it to spec.outbound.commands"
                ),
            );
        }
        let running = report.hash.as_ref().map(PolicyHash::as_str);
        if running.is_some() && running == hash {
            if layer && report.server_layer == Some(false) {
                self.unattached += 1;
                return self.fail(
                    name,
                    NOT_ATTACHED,
                    "runs the published policy, but its code has not attached the server layer, so nothing \
                     enforces spec.inbound: add .layer(fusebox.server_layer()) to its server, or remove \
                     spec.inbound",
                );
            }
            self.enforcing += 1;
            return;
        }
        let refused = report.rejected.as_ref();
        let refused =
            refused.filter(|r| r.hash.as_ref().is_none_or(|refused| hash == Some(refused.as_str())));
        if let Some(refused) = refused {
            self.rejecting += 1;
            self.rejections.push(format!("{name}: {}", refused.reason));
            self.fail(name, reasons::REJECTED, refused.reason.clone());
        } else {
            let running = running.unwrap_or("the compiled-in default");
            let wanted = hash.unwrap_or("a published policy");
            self.fail(name, reasons::APPLYING, format!("runs {running}, not {wanted}"));
        }
    }

    fn breakers_of(&mut self, report: &Report) {
        for breaker in &report.breakers {
            let (state, word) = match breaker.state {
                BreakerState::Closed => continue,
                BreakerState::Open => ("Open", "open"),
                BreakerState::HalfOpen => ("HalfOpen", "half-open"),
            };
            *self.open.entry((breaker.command.clone(), word)).or_default() += 1;
            self.breakers.push(OpenBreaker {
                command: breaker.command.clone(),
                instance: report.instance.clone(),
                state: state.to_owned(),
                since: breaker.since.to_string(),
                reason: clip(breaker.reason.clone()),
            });
        }
    }

    /// Is the policy in force?
    pub fn verdict(&self) -> Verdict {
        let counted = format!("{}/{}", self.enforcing, self.ready);
        if self.unreadable {
            return Verdict::unknown(
                reasons::ETCD_UNAVAILABLE,
                "the instances' reports cannot be read from etcd, or it has just started, was restored or has a new \
                 leader, and they count after 10 s; what the instances run is not known",
            );
        }
        if self.ready == 0 {
            return Verdict::unknown(reasons::NO_READY_INSTANCES, "the Service has no ready instance");
        }
        if self.enforcing == self.ready {
            return Verdict::yes(
                reasons::ENFORCED,
                format!("{counted} ready instances run the published policy"),
            );
        }
        if self.rejecting > 0 {
            let first = self.rejections.iter().take(MAX_REASONS).cloned().collect::<Vec<_>>().join("; ");
            return Verdict::no(
                reasons::REJECTED,
                format!(
                    "{counted} ready instances run the published policy; {} refuse it and keep the last good \
                     one: {first}",
                    self.rejecting
                ),
            );
        }
        if !self.stale.is_empty() {
            return Verdict::no(
                reasons::STALE,
                format!(
                    "{counted} ready instances run the published policy; {} stopped reporting, so it is not known \
                     what they run: {}",
                    self.stale.len(),
                    list(&self.stale)
                ),
            );
        }
        if self.reporting == 0 {
            return Verdict::unknown(
                reasons::NO_REPORTS,
                format!(
                    "none of {} ready instances reports: is the service built with the fusebox library, and \
                     is FUSEBOX_SERVICE set to this resource?",
                    self.ready
                ),
            );
        }
        if self.unattached > 0 && self.enforcing + self.unattached == self.ready {
            return Verdict::no(
                NOT_ATTACHED,
                format!(
                    "{counted} ready instances enforce the published policy; {} run it without the server layer, so \
                     nothing enforces spec.inbound there: add .layer(fusebox.server_layer()) to the server",
                    self.unattached
                ),
            );
        }
        Verdict::no(reasons::APPLYING, format!("{counted} ready instances run the published policy"))
    }

    /// For the columns of `kubectl get`.
    pub fn summary(&self) -> Summary {
        let open: Vec<String> =
            self.open.iter().map(|((command, state), n)| format!("{command} {state} on {n}")).collect();
        let breaker = match open.len() {
            0 if self.unreadable || (self.ready > 0 && self.reporting == 0) => "unknown".to_owned(),
            0 => "closed".to_owned(),
            n if n <= MAX_SUMMARY => open.join(", "),
            n => format!("{} and {} more", open[..MAX_SUMMARY].join(", "), n - MAX_SUMMARY),
        };
        let enforcing = if self.unreadable { "?".to_owned() } else { self.enforcing.to_string() };
        Summary { enforced: format!("{enforcing}/{}", self.ready), breaker, shadow: self.shadow.clone() }
    }
}

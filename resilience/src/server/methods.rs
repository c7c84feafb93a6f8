//! The methods of a service: which policy holds for a request, and what is kept across reloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fusebox_policy::policy::{Inbound, MethodMatch, ServerPolicy};
use tokio::time::Instant;

use crate::flight::Account;
use crate::limit::InFlight;
use crate::outcome::{Outcome, Tally};

/// What one method keeps across reloads: its requests in flight and its counts.
#[derive(Debug)]
pub(crate) struct MethodState {
    /// `user.v1.UserService/GetUser`, `GET /users`, or `default`.
    pub(crate) label: String,
    pub(crate) in_flight: InFlight,
    pub(crate) tally: Tally,
}

/// The methods in force. A method keeps its state under whatever position and policy, also while no
/// policy names it.
#[derive(Debug)]
pub(crate) struct Methods(ArcSwap<InForce>);

/// The whole of [`Inbound`], replaced at once.
#[derive(Debug)]
struct InForce {
    version: u64,
    rules: Vec<(MethodMatch, Rule)>,
    default: Rule,
    /// The state of every method that was ever named.
    states: BTreeMap<MethodMatch, Arc<MethodState>>,
}

/// The policy of a request and whom to count it for.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) policy: ServerPolicy,
    pub(crate) method: Arc<MethodState>,
}

impl Methods {
    /// Version 0.
    pub(crate) fn new(inbound: Inbound) -> Self {
        let default = Arc::new(MethodState::new("default".to_owned()));
        Self(ArcSwap::from_pointee(InForce::new(0, inbound, default, BTreeMap::new())))
    }

    /// Puts a policy in force, unless a newer one is already.
    pub(crate) fn reload(&self, version: u64, inbound: &Inbound) {
        self.0.rcu(|old| {
            if old.version >= version {
                return Arc::clone(old);
            }
            let default = Arc::clone(&old.default.method);
            Arc::new(InForce::new(version, inbound.clone(), default, old.states.clone()))
        });
    }

    /// The rule for a request: the first match, else the default.
    pub(crate) fn rule(&self, http_method: &str, path: &str) -> Rule {
        let in_force = self.0.load();
        let rule = in_force.rules.iter().find(|(matches, _)| matches.matches(http_method, path));
        rule.map_or(&in_force.default, |(_, rule)| rule).clone()
    }

    /// Every method: those that the policy names with it, then the others.
    pub(crate) fn all(&self) -> Vec<Arc<MethodState>> {
        let in_force = self.0.load();
        std::iter::once(&in_force.default.method).chain(in_force.states.values()).cloned().collect()
    }
}

impl InForce {
    fn new(
        version: u64,
        inbound: Inbound,
        default: Arc<MethodState>,
        mut states: BTreeMap<MethodMatch, Arc<MethodState>>,
    ) -> Self {
        let rules = inbound.methods.into_iter().map(|method| {
            let fresh = || Arc::new(MethodState::new(method.matches.to_string()));
            let state = Arc::clone(states.entry(method.matches.clone()).or_insert_with(fresh));
            (method.matches, Rule { policy: method.policy, method: state })
        });
        let rules = rules.collect();
        Self { version, rules, default: Rule { policy: inbound.default, method: default }, states }
    }
}

impl MethodState {
    fn new(label: String) -> Self {
        Self { label, in_flight: InFlight::default(), tally: Tally::default() }
    }
}

impl Account for MethodState {
    type Ticket = ();

    fn settle(&self, (): (), outcome: Outcome, _: Instant) {
        self.in_flight.release();
        self.tally.count(outcome);
    }
}

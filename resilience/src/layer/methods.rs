//! The methods of a service: which policy holds for a request, and what is kept across reloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use fusebox_policy::policy::{Inbound, MethodMatch, ServerPolicy, StaticAnswer};
use http::Response;

use super::answer::Answer;
use crate::circuit::{Circuit, Surroundings};
use crate::fuse::Terms;

/// What one method keeps across reloads.
#[derive(Debug)]
pub(crate) struct MethodState {
    pub(crate) circuit: Circuit,
    pub(crate) fallbacks: AtomicU64,
    answer: ArcSwapOption<StaticAnswer>,
}

/// The methods in force. A method keeps its state under whatever position and policy, also while no
/// policy names it; then it is under the default's.
#[derive(Debug)]
pub(crate) struct Methods {
    in_force: ArcSwap<InForce>,
    around: Surroundings,
}

#[derive(Debug)]
struct InForce {
    rules: Vec<(MethodMatch, &'static MethodState)>,
    default: &'static MethodState,
    /// The state of every method that was ever named.
    states: BTreeMap<MethodMatch, &'static MethodState>,
}

impl Methods {
    /// The methods of a policy.
    pub(crate) fn new(inbound: &Inbound, candidate: Option<&Inbound>, around: Surroundings) -> Self {
        let default = MethodState::leak("default".to_owned(), &inbound.default, 1, &around);
        let nothing = InForce { rules: Vec::new(), default, states: BTreeMap::new() };
        let methods = Self { in_force: ArcSwap::from_pointee(nothing), around };
        methods.reload(inbound, candidate, 1);
        methods
    }

    /// Puts a policy in force, and a candidate beside it. Not to be called by two threads at once.
    pub(crate) fn reload(&self, inbound: &Inbound, candidate: Option<&Inbound>, instances: u32) {
        let old = self.in_force.load();
        let mut states = old.states.clone();
        let rules = inbound.methods.iter().map(|method| {
            let fresh =
                || MethodState::leak(method.matches.to_string(), &method.policy, instances, &self.around);
            let state = *states.entry(method.matches.clone()).or_insert_with(fresh);
            (method.matches.clone(), state)
        });
        let rules: Vec<_> = rules.collect();
        let policies: BTreeMap<_, _> = inbound.methods.iter().map(|m| (&m.matches, &m.policy)).collect();
        let candidates = candidate.map(|candidate| {
            let of = candidate.methods.iter().map(|m| (&m.matches, &m.policy));
            (of.collect::<BTreeMap<_, _>>(), &candidate.default)
        });
        let candidate_of = |matches: Option<&MethodMatch>| {
            let (methods, default) = candidates.as_ref()?;
            Some(matches.and_then(|matches| methods.get(matches).copied()).unwrap_or(default))
        };
        old.default.reload(&inbound.default, candidate_of(None), instances);
        for (matches, state) in &states {
            let policy = policies.get(matches).copied().unwrap_or(&inbound.default);
            state.reload(policy, candidate_of(Some(matches)), instances);
        }
        self.in_force.store(Arc::new(InForce { rules, default: old.default, states }));
    }

    /// How many instances share the rates of scope `Service`. Not to be called beside a reload.
    #[cfg(feature = "etcd")]
    pub(crate) fn set_instances(&self, instances: u32) {
        for method in self.all() {
            method.circuit.set_instances(instances);
        }
    }

    /// The method of a request: the first match, else the default.
    pub(crate) fn find(&self, http_method: &str, path: &str) -> &'static MethodState {
        let in_force = self.in_force.load();
        let rule = in_force.rules.iter().find(|(matches, _)| matches.matches(http_method, path));
        rule.map_or(in_force.default, |(_, method)| method)
    }

    /// Every method: the default, then those that a policy has ever named.
    pub(crate) fn all(&self) -> Vec<&'static MethodState> {
        let in_force = self.in_force.load();
        std::iter::once(in_force.default).chain(in_force.states.values().copied()).collect()
    }
}

impl MethodState {
    fn leak(label: String, policy: &ServerPolicy, instances: u32, around: &Surroundings) -> &'static Self {
        Box::leak(Box::new(Self {
            circuit: Circuit::new(label, Terms::from(policy), instances, around.clone()),
            fallbacks: AtomicU64::new(0),
            answer: ArcSwapOption::empty(),
        }))
    }

    fn reload(&self, policy: &ServerPolicy, candidate: Option<&ServerPolicy>, instances: u32) {
        self.circuit.reload(Terms::from(policy), candidate.map(Terms::from), instances);
        self.answer.store(policy.fallback.clone().map(Arc::new));
    }

    /// What the policy answers in place of an answer of the layer.
    pub(crate) fn fallback(&self, answer: Answer) -> Option<Response<Bytes>> {
        let response = answer.fallback(self.answer.load().as_ref()?)?;
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        Some(response)
    }
}

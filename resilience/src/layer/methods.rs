//! The methods of a service: which policy holds for a request, and what is kept across reloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use fusebox_policy::policy::{Inbound, MethodMatch, ServerPolicy, StaticAnswer};
use http::Response;

use super::answer::Answer;
use super::body::Answered;
use super::descriptors::Descriptors;
use super::fallback::Ready;
use super::protocol::Protocol;
use crate::circuit::{Circuit, Surroundings};
use crate::fuse::Terms;

/// What one method keeps across reloads.
#[derive(Debug)]
pub(crate) struct MethodState {
    pub(crate) circuit: Circuit,
    pub(crate) fallbacks: AtomicU64,
    fallback: ArcSwapOption<Ready>,
}

/// The methods in force. A method keeps its state under whatever position and policy, also while no
/// policy names it; then it is under the default's.
#[derive(Debug)]
pub(crate) struct Methods {
    in_force: ArcSwap<InForce>,
    pub(crate) descriptors: Descriptors,
    around: Surroundings,
}

#[derive(Debug)]
struct InForce {
    rules: Vec<(MethodMatch, &'static MethodState)>,
    default: &'static MethodState,
    answers: BTreeMap<MethodMatch, StaticAnswer>,
    /// The state of every method that was ever named.
    states: BTreeMap<MethodMatch, &'static MethodState>,
}

impl Methods {
    /// The methods of a policy.
    pub(crate) fn new(inbound: &Inbound, candidate: Option<&Inbound>, around: Surroundings) -> Self {
        let default = MethodState::leak("default".to_owned(), &inbound.default, 1, &around);
        let nothing =
            InForce { rules: Vec::new(), default, answers: BTreeMap::new(), states: BTreeMap::new() };
        let methods =
            Self { in_force: ArcSwap::from_pointee(nothing), descriptors: Descriptors::default(), around };
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
        let answers = inbound
            .methods
            .iter()
            .filter_map(|method| Some((method.matches.clone(), method.policy.fallback.clone()?)));
        let answers = answers.collect();
        self.in_force.store(Arc::new(InForce { rules, default: old.default, answers, states }));
        self.make_ready();
    }

    /// Makes the fallbacks ready, by the descriptors there are. Not to be called by two threads at once.
    pub(crate) fn make_ready(&self) {
        let in_force = self.in_force.load();
        for (matches, state) in &in_force.states {
            let ready = in_force.answers.get(matches).and_then(|answer| self.ready(matches, answer));
            state.fallback.store(ready.map(Arc::new));
        }
    }

    fn ready(&self, matches: &MethodMatch, answer: &StaticAnswer) -> Option<Ready> {
        Ready::new(matches, answer, &self.descriptors)
            .inspect_err(
                |problem| tracing::error!(method = %matches, %problem, "this fallback cannot be given"),
            )
            .ok()
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
            fallback: ArcSwapOption::empty(),
        }))
    }

    fn reload(&self, policy: &ServerPolicy, candidate: Option<&ServerPolicy>, instances: u32) {
        self.circuit.reload(Terms::from(policy), candidate.map(Terms::from), instances);
    }

    /// What the policy answers in place of an answer of the layer.
    pub(crate) fn fallback(&self, protocol: Protocol, instead: Answer) -> Option<Response<Answered>> {
        let response = self.fallback.load().as_ref()?.response(protocol, instead)?;
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        Some(response)
    }
}

//! The commands of a process, by name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use fusebox_policy::policy::{CommandPolicy, Outbound};

use super::state::CommandState;
use crate::circuit::Surroundings;
use crate::sync::Writing;

/// How many names that no policy mentions have a state of their own. Names are meant to be a
/// handful of constants; made from data they would grow without bound.
pub(crate) const MAX_UNKNOWN: usize = 256;

/// The name of the state that further names share.
pub(crate) const OTHER: &str = "(other)";

/// Every command that was ever asked for. A command removed from the policy keeps its state, under
/// the default policy, until the process ends.
#[derive(Debug)]
pub(crate) struct Registry {
    commands: ArcSwap<Commands>,
    around: Surroundings,
}

/// One moment of the registry.
#[derive(Clone, Debug)]
struct Commands {
    outbound: Arc<Outbound>,
    candidate: Option<Arc<Outbound>>,
    instances: u32,
    /// Whether the policy came from somebody: nobody can be blamed for a name that the compiled-in
    /// default does not know.
    declared: bool,
    states: HashMap<String, &'static CommandState>,
}

impl Registry {
    /// No command yet.
    pub(crate) fn new(
        outbound: Outbound,
        candidate: Option<Outbound>,
        declared: bool,
        around: Surroundings,
    ) -> Self {
        let (outbound, candidate) = (Arc::new(outbound), candidate.map(Arc::new));
        let commands = Commands { outbound, candidate, instances: 1, declared, states: HashMap::new() };
        Self { commands: ArcSwap::from_pointee(commands), around }
    }

    /// The command of that name, if it was ever asked for or shares a state with others.
    pub(crate) fn find(&self, name: &str) -> Option<&'static CommandState> {
        self.commands.load().states.get(name).copied()
    }

    /// The command of that name.
    pub(crate) fn get_or_add(&self, name: &str, _: &Writing<'_>) -> &'static CommandState {
        let commands = self.commands.load();
        let known = |name: &str| commands.outbound.commands.contains_key(name);
        let unknown = || commands.states.keys().filter(|name| !known(name)).count();
        let full = !known(name) && unknown() >= MAX_UNKNOWN;
        let name = if full { OTHER } else { name };
        if let Some(state) = commands.states.get(name) {
            return state;
        }
        let (policy, instances) = (commands.policy(name).clone(), commands.instances);
        let state = CommandState::new(name, policy.clone(), instances, self.around.clone());
        let state: &'static CommandState = Box::leak(Box::new(state));
        state.reload(&policy, commands.candidate(name), instances);
        let mut more = Commands::clone(&commands);
        more.states.insert(name.to_owned(), state);
        more.say_unknown();
        self.commands.store(Arc::new(more));
        self.around.changed.notify_one();
        state
    }

    /// Puts a policy in force, and a candidate beside it.
    pub(crate) fn reload(
        &self,
        outbound: Outbound,
        candidate: Option<Outbound>,
        instances: u32,
        _: &Writing<'_>,
    ) {
        let states = self.commands.load().states.clone();
        let (outbound, candidate) = (Arc::new(outbound), candidate.map(Arc::new));
        let commands = Commands { outbound, candidate, instances, declared: true, states };
        for (name, state) in &commands.states {
            state.reload(commands.policy(name), commands.candidate(name), instances);
        }
        commands.say_unknown();
        self.commands.store(Arc::new(commands));
    }

    /// How many instances share the rates of scope `Service`.
    #[cfg(feature = "etcd")]
    pub(crate) fn set_instances(&self, instances: u32, _: &Writing<'_>) {
        let commands = Commands { instances, ..Commands::clone(&self.commands.load()) };
        for state in commands.states.values() {
            state.circuit.set_instances(instances);
        }
        self.commands.store(Arc::new(commands));
    }

    /// Every command, by name.
    pub(crate) fn all(&self) -> Vec<&'static CommandState> {
        let mut all: Vec<_> = self.commands.load().states.values().copied().collect();
        all.sort_by(|a, b| a.circuit.name.cmp(&b.circuit.name));
        all
    }

    /// The commands that were asked for and that the policy does not name, by name.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let commands = self.commands.load();
        let mut unknown: Vec<_> = commands.unknown().map(|state| state.circuit.name.clone()).collect();
        unknown.sort();
        unknown
    }
}

impl Commands {
    fn policy(&self, name: &str) -> &CommandPolicy {
        self.outbound.commands.get(name).unwrap_or(&self.outbound.default)
    }

    fn candidate(&self, name: &str) -> Option<&CommandPolicy> {
        let candidate = self.candidate.as_ref()?;
        Some(candidate.commands.get(name).unwrap_or(&candidate.default))
    }

    fn unknown(&self) -> impl Iterator<Item = &'static CommandState> {
        let unknown = |state: &&CommandState| !self.outbound.commands.contains_key(&state.circuit.name);
        self.states.values().copied().filter(move |state| self.declared && unknown(state))
    }

    fn say_unknown(&self) {
        for state in self.unknown() {
            if !state.said_unknown.swap(true, Ordering::Relaxed) {
                let known = self.outbound.commands.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                tracing::warn!(
                    command = %state.circuit.name, %known,
                    "the policy does not name this command: it runs under outbound's defaults"
                );
            }
        }
    }
}

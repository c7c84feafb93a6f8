//! The commands of a process, by name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use fusebox_policy::policy::Outbound;
use tokio::sync::Notify;

use super::state::CommandState;
use crate::clock::Clock;

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
    clock: Clock,
    changed: Arc<Notify>,
}

/// One moment of the registry: replaced as a whole, so that a command cannot be created under one
/// policy while another is put in force.
#[derive(Clone, Debug)]
struct Commands {
    version: u64,
    outbound: Arc<Outbound>,
    /// Whether the policy came from somebody: nobody can be blamed for a name that the compiled-in
    /// default does not know.
    declared: bool,
    states: HashMap<String, Arc<CommandState>>,
}

impl Registry {
    /// No command yet, version 0.
    pub(crate) fn new(outbound: Outbound, declared: bool, clock: Clock, changed: Arc<Notify>) -> Self {
        let outbound = Arc::new(outbound);
        let commands = Commands { version: 0, outbound, declared, states: HashMap::new() };
        Self { commands: ArcSwap::from_pointee(commands), clock, changed }
    }

    /// The command of that name.
    pub(crate) fn get(&self, name: &str) -> Arc<CommandState> {
        if let Some(state) = self.commands.load().states.get(name) {
            return Arc::clone(state);
        }
        self.commands.rcu(|commands| commands.with(name, self.clock, &self.changed));
        let commands = self.commands.load();
        commands.say_unknown();
        match commands.find(name) {
            Some(state) => {
                self.changed.notify_one();
                Arc::clone(state)
            }
            // Not reached: `with` has added one or the other, and nothing is ever removed.
            None => Arc::new(commands.state(name, self.clock, &self.changed)),
        }
    }

    /// Puts a policy in force, unless a newer one is already.
    pub(crate) fn reload(&self, version: u64, outbound: Outbound) {
        let outbound = Arc::new(outbound);
        self.commands.rcu(|commands| {
            if commands.version >= version {
                return Arc::clone(commands);
            }
            let outbound = Arc::clone(&outbound);
            Arc::new(Commands { version, outbound, declared: true, states: commands.states.clone() })
        });
        // Whoever was created before the swap is in the map, whoever comes after has the new policy.
        let commands = self.commands.load();
        for (name, state) in &commands.states {
            state.reload(commands.version, commands.policy(name));
        }
        commands.say_unknown();
    }

    /// Every command, by name.
    pub(crate) fn all(&self) -> Vec<Arc<CommandState>> {
        let mut all: Vec<_> = self.commands.load().states.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The commands that were asked for and that the policy does not name, by name.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let commands = self.commands.load();
        let mut unknown: Vec<_> = commands.unknown().map(|state| state.name.clone()).collect();
        unknown.sort();
        unknown
    }
}

impl Commands {
    fn with(self: &Arc<Self>, name: &str, clock: Clock, changed: &Arc<Notify>) -> Arc<Self> {
        let full = !self.outbound.commands.contains_key(name) && self.states.len() >= MAX_UNKNOWN;
        let name = if full { OTHER } else { name };
        if self.states.contains_key(name) {
            return Arc::clone(self);
        }
        let mut more = Self::clone(self);
        more.states.insert(name.to_owned(), Arc::new(self.state(name, clock, changed)));
        Arc::new(more)
    }

    fn state(&self, name: &str, clock: Clock, changed: &Arc<Notify>) -> CommandState {
        CommandState::new(name, self.version, self.policy(name).clone(), clock, Arc::clone(changed))
    }

    fn find(&self, name: &str) -> Option<&Arc<CommandState>> {
        self.states.get(name).or_else(|| self.states.get(OTHER))
    }

    fn policy(&self, name: &str) -> &fusebox_policy::policy::CommandPolicy {
        self.outbound.commands.get(name).unwrap_or(&self.outbound.default)
    }

    fn unknown(&self) -> impl Iterator<Item = &Arc<CommandState>> {
        let unknown = |state: &&Arc<CommandState>| !self.outbound.commands.contains_key(&state.name);
        self.states.values().filter(move |state| self.declared && unknown(state))
    }

    fn say_unknown(&self) {
        for state in self.unknown() {
            if !state.said_unknown.swap(true, Ordering::Relaxed) {
                let known = self.outbound.commands.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                tracing::warn!(
                    command = %state.name, %known,
                    "the policy does not name this command: it runs under outbound's defaults"
                );
            }
        }
    }
}

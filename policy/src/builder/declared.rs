//! What was said, and how it lies over what it starts from.

use std::collections::BTreeMap;
use std::fmt;

use super::command::CommandBuilder;
use super::method::{MethodBuilder, wrong_match};
use super::notes::Notes;
use crate::policy::{Inbound, MethodMatch, MethodPolicy, Outbound};

/// What changes a `T`. It is kept until all is said, so that the order of saying does not matter, and may
/// be applied twice: to the policy and to its shadow.
type Change<'a, T> = Box<dyn Fn(T) -> T + 'a>;

/// One layer of declarations.
#[derive(Default)]
pub(super) struct Declared<'a> {
    default_command: Vec<Change<'a, CommandBuilder>>,
    commands: Vec<(String, Change<'a, CommandBuilder>)>,
    default_method: Vec<Change<'a, MethodBuilder>>,
    methods: Vec<(MethodMatch, Change<'a, MethodBuilder>)>,
}

impl<'a> Declared<'a> {
    pub(super) fn default_command(&mut self, of: impl Fn(CommandBuilder) -> CommandBuilder + 'a) {
        self.default_command.push(Box::new(of));
    }

    pub(super) fn command(&mut self, name: String, of: impl Fn(CommandBuilder) -> CommandBuilder + 'a) {
        self.commands.push((name, Box::new(of)));
    }

    pub(super) fn default_method(&mut self, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) {
        self.default_method.push(Box::new(of));
    }

    pub(super) fn method(&mut self, matches: MethodMatch, of: impl Fn(MethodBuilder) -> MethodBuilder + 'a) {
        self.methods.push((matches.normal(), Box::new(of)));
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.default_command.is_empty() || !self.commands.is_empty()
    }

    pub(super) fn has_methods(&self) -> bool {
        !self.default_method.is_empty() || !self.methods.is_empty()
    }
}

impl fmt::Debug for Declared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: Vec<_> = self.commands.iter().map(|(name, _)| name).collect();
        let methods: Vec<_> = self.methods.iter().map(|(matches, _)| matches.to_string()).collect();
        f.debug_struct("Declared")
            .field("commands", &commands)
            .field("methods", &methods)
            .finish_non_exhaustive()
    }
}

/// The calls that are made, under these layers: each over those before it.
pub(super) fn outbound(layers: &[&Declared<'_>], notes: &mut Notes) -> Outbound {
    let changes = layers.iter().flat_map(|layer| &layer.default_command);
    let default = changes.fold(CommandBuilder::default(), |builder, change| change(builder));
    let mut of_default = Notes::default();
    let mut commands = BTreeMap::new();
    let policy = default.clone().finish(&mut of_default);
    for layer in layers {
        for (n, (name, _)) in layer.commands.iter().enumerate() {
            let at = format!("outbound {name}: ");
            if layer.commands[..n].iter().any(|(earlier, _)| earlier == name) {
                notes.0.push(format!("{at}named twice"));
                continue;
            }
            if !is_command(name) {
                notes.0.push(format!(
                    "outbound: a command's name is 1 to 63 letters, digits, _, . or -, unlike {name:?}"
                ));
            }
            let same = layers.iter().flat_map(|layer| &layer.commands).filter(|(other, _)| other == name);
            let builder = same.fold(default.clone(), |builder, (_, change)| change(builder));
            let mut own = Notes::default();
            let policy = builder.finish(&mut own);
            own.0.retain(|line| !of_default.0.contains(line));
            // Of two layers that say the same the later has found all there is.
            if commands.insert(name.clone(), policy).is_none() {
                notes.extend(&at, own);
            }
        }
    }
    notes.extend("outbound default: ", of_default);
    Outbound { default: policy, commands }
}

/// The requests that are served, under these layers: each over those before it.
pub(super) fn inbound(layers: &[&Declared<'_>], notes: &mut Notes) -> Inbound {
    let changes = layers.iter().flat_map(|layer| &layer.default_method);
    let default = changes.fold(MethodBuilder::default(), |builder, change| change(builder));
    let mut of_default = Notes::default();
    let policy = default.clone().finish(&mut of_default);
    // With the layer that said the last of it: what one layer says twice stays so, and is told.
    let mut methods: Vec<(MethodMatch, MethodBuilder, usize)> = Vec::new();
    for (n, layer) in layers.iter().enumerate() {
        for (matches, change) in &layer.methods {
            if let Some((_, builder, last)) =
                methods.iter_mut().find(|(other, _, last)| other == matches && *last < n)
            {
                *builder = change(builder.clone());
                *last = n;
                continue;
            }
            // The first layer's order is what a person said; what is added to it must be reached.
            let at = methods
                .iter()
                .position(|(wide, _, last)| n > 0 && *last < n && wide.covers(matches) && wide != matches);
            methods.insert(at.unwrap_or(methods.len()), (matches.clone(), change(default.clone()), n));
        }
    }
    let methods = methods.into_iter().enumerate().map(|(n, (matches, builder, _))| {
        let mut own = Notes::default();
        let policy = builder.finish(&mut own);
        own.0.retain(|line| !of_default.0.contains(line));
        notes.extend(&format!("inbound.methods[{n}]."), own);
        notes.0.extend(wrong_match(&matches).map(|wrong| format!("inbound.methods[{n}].match: {wrong}")));
        MethodPolicy { matches, policy }
    });
    let methods = methods.collect();
    notes.extend("inbound.default.", of_default);
    Inbound { default: policy, methods }
}

/// As the custom resource has it.
fn is_command(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

impl Outbound {
    /// Without what could only act.
    pub(super) fn without_acts(mut self) -> Self {
        for policy in self.commands.values_mut().chain([&mut self.default]) {
            policy.retry = None;
            policy.fallback_enabled = true;
            policy.fallback_max_concurrent_requests = None;
        }
        self
    }
}

impl Inbound {
    /// Without what could only act.
    pub(super) fn without_acts(mut self) -> Self {
        for method in &mut self.methods {
            method.policy.fallback = None;
        }
        self.default.fallback = None;
        self
    }
}

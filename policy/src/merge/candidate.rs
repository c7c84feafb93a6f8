//! The candidate that a shadow describes: the active declaration with what the shadow changes in it, as a
//! person would edit it, and without what could only act.

use super::method_match;
use super::over::Over;
use crate::v1alpha1::{InboundSpec, MethodSpec, OutboundSpec};

/// For calls to the service.
pub fn inbound(shadow: &InboundSpec, active: Option<&InboundSpec>) -> InboundSpec {
    let none = InboundSpec::default();
    let active = active.unwrap_or(&none);
    let section = shadow.section().over(&active.section());
    let mut methods = active.methods.clone();
    // A match that is given twice stays so, and is told like any other.
    let mut changed = vec![false; methods.len()];
    for own in &shadow.methods {
        let this = method_match(&own.matches).ok();
        let same =
            methods.iter().position(|method| this.is_some() && method_match(&method.matches).ok() == this);
        match same {
            Some(at) if !changed[at] => {
                methods[at] = own.over(&methods[at]);
                changed[at] = true;
            }
            _ => {
                // Before the first that would keep all requests from it.
                let covered = |method: &MethodSpec| {
                    let wide = method_match(&method.matches).ok();
                    wide.zip(this.as_ref()).is_some_and(|(wide, this)| wide.covers(this) && wide != *this)
                };
                let at = methods.iter().position(covered).unwrap_or(methods.len());
                methods.insert(at, own.clone());
                changed.insert(at, true);
            }
        }
    }
    for method in &mut methods {
        method.fallback = None;
    }
    InboundSpec {
        timeout: section.timeout,
        max_concurrent_requests: section.max_concurrent_requests,
        rate_limit: section.rate_limit,
        methods,
    }
}

/// For calls that the service makes.
pub fn outbound(shadow: &OutboundSpec, active: Option<&OutboundSpec>) -> OutboundSpec {
    let none = OutboundSpec::default();
    let active = active.unwrap_or(&none);
    let section = shadow.section().over(&active.section());
    let mut commands = active.commands.clone();
    let mut changed = vec![false; commands.len()];
    for own in &shadow.commands {
        match commands.iter().position(|command| command.name == own.name) {
            Some(at) if !changed[at] => {
                commands[at] = own.over(&commands[at]);
                changed[at] = true;
            }
            _ => {
                commands.push(own.clone());
                changed.push(true);
            }
        }
    }
    for command in &mut commands {
        (command.retry, command.fallback) = (None, None);
    }
    OutboundSpec {
        timeout: section.timeout,
        max_concurrent_requests: section.max_concurrent_requests,
        rate_limit: section.rate_limit,
        circuit_breaker: section.circuit_breaker,
        retry: None,
        errors: section.errors,
        fallback: None,
        commands,
    }
}

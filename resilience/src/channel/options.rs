//! What a caller chooses for its channel.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::request::Parts;

use super::survey::Rules;

/// What a caller chooses for its channel.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) max_age: Option<Duration>,
    pub(super) zone: Option<String>,
    pub(super) rules: Rules,
    /// Which requests do no harm if they are sent twice.
    pub(super) idempotent: Option<Which>,
}

/// Tells some requests from others.
pub(super) type Which = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

impl Default for Options {
    fn default() -> Self {
        let rules = Rules { max_ejected_percent: 50, panic_percent: 25, zone_at_least: 1 };
        Self { max_age: None, zone: None, rules, idempotent: None }
    }
}

impl Options {
    /// The request, and whether it may be sent twice.
    pub(super) fn is_idempotent<B>(&self, request: Request<B>) -> (Request<B>, bool) {
        let Some(idempotent) = &self.idempotent else { return (request, false) };
        let (parts, body) = request.into_parts();
        let may_repeat = idempotent(&parts);
        (Request::from_parts(parts, body), may_repeat)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (zone, rules) = (&self.zone, &self.rules);
        f.debug_struct("Options").field("zone", zone).field("rules", rules).finish_non_exhaustive()
    }
}

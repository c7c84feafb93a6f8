//! A breaker as its callers feel it: its state under its mode.

use fusebox_policy::policy::{BreakerMode, BreakerPolicy};
use fusebox_policy::wire::BreakerState;

use super::state::Phase;

/// What callers feel of a breaker: without a policy, and in a mode that admits everything, it is
/// closed whatever its frozen state.
pub(crate) fn felt(policy: Option<&BreakerPolicy>, phase: Phase) -> BreakerState {
    let Some(policy) = policy else { return BreakerState::Closed };
    match (policy.mode, phase) {
        (BreakerMode::ForcedClosed | BreakerMode::Disabled, _) | (BreakerMode::Enforce, Phase::Closed) => {
            BreakerState::Closed
        }
        (BreakerMode::ForcedOpen, _) | (BreakerMode::Enforce, Phase::Open { .. }) => BreakerState::Open,
        (BreakerMode::Enforce, Phase::HalfOpen { .. }) => BreakerState::HalfOpen,
    }
}

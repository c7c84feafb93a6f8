//! One pass for a resource that cannot be decoded: what was applied of it stays, and follows its instances. Its status
//! is left as it is.

use std::sync::Arc;

use fusebox_policy::v1alpha1::ResilientService;

use super::plan::Direction;
use super::validate::Refusal;
use super::{Context, Done, HELD, Next, RESYNC, apply, deletions, desired, observe, plan, resync, trouble};
use super::{
    conditions::{reasons, types},
    standing,
};
use crate::metrics::Outcome;
use crate::model;
use crate::ports::{Notice, Standing};

/// `rest` is what can be told of it, `notice` what is told to people, once for each edit.
pub async fn keep(context: &Context, rest: &Arc<ResilientService>, notice: &Notice) -> Done {
    let seen = observe::observe(context, rest).await;
    let (message, lost) = (notice.message.clone(), seen.rivals.lost.clone());
    let refused = Err(Refusal { reason: reasons::UNREADABLE, message, lost });
    let mut desired = desired::desired(&context.settings.cluster, &seen, &refused);
    deletions::hold(context, &seen, &mut desired).await;
    let plan = plan::plan(&context.settings.cluster, &seen, &desired, Direction::Converge);
    let done = |next, outcome, effects| Done { next, outcome, effects };
    match standing::standing(context, rest).await {
        Ok(Standing::AsShown) => {}
        Ok(Standing::Edited) => return done(Next::After(RESYNC), Outcome::retry, 0),
        Ok(Standing::Gone) => return done(Next::OnChange, Outcome::cleaned, 0),
        Err(error) => return trouble(context, rest, &error).await,
    }
    let is_held = deletions::is_held(&desired);
    let (news, held_news) = context.memory.unreadable(rest, is_held).await;
    if news {
        tracing::warn!(resource = %model::ident(rest), "{}", notice.message);
        context.cluster.notify(rest, notice).await;
    }
    if let Some(why) = desired.catalog.blocked.as_ref().filter(|_| held_news) {
        let [reason, action] = [why.reason, types::REGISTERED].map(str::to_owned);
        let held = Notice { warning: true, reason, action, message: why.message.clone() };
        context.cluster.notify(rest, &held).await;
    }
    let applied = apply::apply(context, &seen, plan).await;
    // No status tells it.
    for obstacle in applied.all() {
        tracing::warn!(resource = %model::ident(rest), reason = obstacle.reason, "{}", obstacle.message);
    }
    let wait = if applied.is_transient() {
        context.memory.failed(rest).await
    } else {
        context.memory.succeeded(rest).await;
        if is_held { HELD } else { resync(context.cluster.count()) }
    };
    done(Next::After(wait), Outcome::unreadable, applied.done())
}

//! Whether a resource still is what the watches showed, as they may be behind: at the start of a process most of all.

use fusebox_policy::v1alpha1::ResilientService;

use super::Context;
use crate::ports::{Standing, Unavailable};

/// What became of a resource since the watches showed it. It is read anew, but where this process has done so before:
/// since then nobody else writes its status. What was concluded of an old view is forgotten.
pub async fn standing(context: &Context, resource: &ResilientService) -> Result<Standing, Unavailable> {
    if context.memory.is_current(resource).await {
        return Ok(Standing::AsShown);
    }
    let standing = context.cluster.standing(resource).await?;
    match standing {
        Standing::AsShown => context.memory.exists(resource).await,
        Standing::Edited => context.memory.doubt(resource).await,
        Standing::Gone => context.memory.forget(resource).await,
    }
    Ok(standing)
}

//! Running cargo on this workspace.

use std::path::Path;

use anyhow::Result;
use fusebox_cluster::process::Exec;

/// A cargo command with its output where ours goes. A cold build of everything fits into the deadline.
pub fn cargo(checkout: &Path, args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Exec::new(cargo).args(args).dir(checkout).deadline(40 * 60).shown_live()
}

//! Running cargo on this workspace.

use std::path::Path;

use anyhow::Result;
use fusebox_cluster::process::Exec;

/// A cargo command with its output where ours goes. A cold build of everything fits into the deadline.
pub fn cargo(checkout: &Path, args: &[&str]) -> Result<()> {
    command(checkout).args(args).deadline(40 * 60).shown_live()
}

/// Cargo, on this workspace.
pub fn command(checkout: &Path) -> Exec {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What `cargo run` told us of our own package: a build script that reads such a variable would be run again,
    // and all that depends on it built again, at each turn from a developer's own cargo to ours.
    let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    let told =
        std::env::vars().map(|(name, _)| name).filter(|name| ours.iter().any(|ours| name.starts_with(ours)));
    told.fold(Exec::new(cargo), |command, name| command.without(&name)).dir(checkout)
}

//! The machine's network, rules, mounts and cgroups, so that a test can prove that `down` leaves nothing.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::Places;
use crate::process::Exec;

/// One line for each thing of the machine that a cluster could leave changed.
#[derive(Debug, Clone)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// The machine as it is. It needs the tools of the packages road (`ip`, `nft`).
    pub fn take(places: &Places) -> Result<Self> {
        let text = Exec::new(places.script("snapshot.sh")).deadline(60).output()?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// What `later` has more (`+`) and less (`-`).
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let more = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        let less = self.0.difference(&later.0).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }
}

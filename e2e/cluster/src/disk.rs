//! Room on the disk: a cluster that runs out of it fails late, and in the words of whoever wrote last.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::process::Exec;

/// What the nodes of a cluster and their images take, in GiB.
pub const CLUSTER: u64 = 8;

/// Is there so much room, in GiB, on the disk of `at`, for `what`?
pub fn room(at: &Path, gib: u64, what: &str) -> Result<()> {
    let said = Exec::new("df").args(["-Pk", &at.to_string_lossy()]).output()?;
    let free = free(&said).with_context(|| format!("df says of {}: {said}", at.display()))?;
    ensure!(
        free >= gib,
        "{free} GiB are free on the disk of {}, and {what} takes {gib}: make room there (`cargo clean`, `docker system \
         prune`, old checkouts), then run this again",
        at.display()
    );
    Ok(())
}

/// Whole GiB free, by what `df -Pk` prints.
fn free(said: &str) -> Option<u64> {
    let kib: u64 = said.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_room_is_in_the_fourth_column() {
        let said = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 263174212 84000000 8493465 92% /\n";
        assert_eq!(free(said), Some(8));
        assert_eq!(free("df: /no: No such file or directory"), None);
    }

    #[test]
    fn too_little_is_told_with_what_to_do() {
        let here = std::env::temp_dir();
        room(&here, 0, "nothing").unwrap();
        let told = room(&here, 1 << 30, "a zoo").unwrap_err().to_string();
        assert!(told.contains("a zoo takes 1073741824: make room"), "{told}");
    }
}

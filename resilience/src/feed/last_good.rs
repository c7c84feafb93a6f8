//! The last good policy on disk, so that a process starts under it while etcd is away.
//!
//! The file is one line that says whose it is, and the document as it came. It is written whole or not at all
//! (a temporary file, renamed), at most once a second.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::wire::{MAX_POLICY_BYTES, PolicyDocument};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::env::Settings;
use crate::fusebox::Shared;

/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, and whose policy it holds.
#[derive(Clone, Debug)]
pub(super) struct LastGood {
    path: PathBuf,
    head: String,
}

impl LastGood {
    /// Where the settings say so.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let path = settings.last_good.clone()?;
        let key = settings.keys.policy(&settings.service);
        Some(Self { path, head: format!("fusebox last good {key}\n") })
    }

    /// Puts it in force, if there is one. What cannot be used is logged and no reason not to start.
    pub(super) fn apply(&self, shared: &Shared) {
        match self.read() {
            Ok(Some(document)) => {
                tracing::info!(hash = %document.hash, file = %self.path.display(), "the last good policy is in force, until etcd answers");
                super::apply::apply(shared, document.to_json().as_bytes());
            }
            Ok(None) => {}
            Err(problem) => {
                tracing::warn!(file = %self.path.display(), problem, "the last good policy cannot be used");
            }
        }
    }

    fn read(&self) -> Result<Option<PolicyDocument>, String> {
        let bytes = match fs::metadata(&self.path) {
            Ok(file) if file.len() > (MAX_POLICY_BYTES + self.head.len()) as u64 => {
                return Err(format!("it has {} bytes", file.len()));
            }
            Ok(_) => fs::read(&self.path).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let Some(document) = bytes.strip_prefix(self.head.as_bytes()) else {
            return Err(format!(
                "it is not of this service: it does not begin with {:?}",
                self.head.trim_end()
            ));
        };
        PolicyDocument::from_json(document).map(Some).map_err(|refused| refused.to_string())
    }

    /// Keeps the file as the newest of `documents`.
    pub(super) async fn keep(self, mut documents: watch::Receiver<Option<Arc<Vec<u8>>>>) {
        while documents.changed().await.is_ok() {
            let Some(document) = documents.borrow_and_update().clone() else { continue };
            let file = self.clone();
            let written = spawn_blocking(move || file.write(&document)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(file = %self.path.display(), %error, "the last good policy could not be kept on disk");
            }
            sleep(PAUSE).await;
        }
    }

    fn write(&self, document: &[u8]) -> io::Result<()> {
        let part = part(&self.path);
        let mut file = fs::File::create(&part)?;
        file.write_all(self.head.as_bytes())?;
        file.write_all(document)?;
        file.sync_all()?;
        fs::rename(&part, &self.path)
    }
}

/// Beside the file, so that it can be renamed to it.
fn part(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

#[cfg(test)]
mod tests {
    use fusebox_policy::policy::{Limit, Policy};

    use super::*;

    fn document(limit: u64) -> PolicyDocument {
        let mut policy = Policy::compiled_in();
        policy.inbound.default.max_concurrent_requests = Some(Limit::try_from(limit).unwrap());
        PolicyDocument::new("uid", policy)
    }

    fn file(folder: &tempfile::TempDir) -> LastGood {
        LastGood { path: folder.path().join("policy"), head: "fusebox last good a/b\n".to_owned() }
    }

    #[test]
    fn what_was_written_is_put_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        assert!(matches!(file.read(), Ok(None)), "none yet");
        for limit in [1, 2] {
            file.write(document(limit).to_json().as_bytes()).unwrap();
        }
        let shared = Shared::new(Policy::compiled_in(), None);
        file.apply(&shared);
        assert_eq!(shared.applied.borrow().hash, Some(document(2).hash));
        assert!(!part(&file.path).exists());
    }

    #[test]
    fn another_services_and_a_damaged_one_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        let json = document(1).to_json();
        let other = LastGood { head: "fusebox last good c/d\n".to_owned(), ..file.clone() };
        other.write(json.as_bytes()).unwrap();
        assert!(file.read().unwrap_err().contains("not of this service"));
        file.write(&json.as_bytes()[..100]).unwrap();
        assert!(file.read().unwrap_err().contains("not a policy document"));
        file.write(&vec![b' '; MAX_POLICY_BYTES + 1]).unwrap();
        assert!(file.read().unwrap_err().contains("bytes"));
        let shared = Shared::new(Policy::compiled_in(), None);
        file.apply(&shared);
        let applied = shared.applied.borrow().clone();
        assert_eq!((applied.hash, applied.rejected), (None, None));
    }
}

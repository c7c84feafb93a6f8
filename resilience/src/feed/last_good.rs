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
use tokio_util::sync::CancellationToken;

use crate::env::Settings;
use crate::fusebox::Shared;

/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// The newest good document, if there was one.
pub(super) type Document = Option<Arc<Vec<u8>>>;

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

    /// Puts it in force, if there is one; the document, which may be refused only for descriptors that are still to
    /// come. What cannot be used is logged and no reason not to start.
    pub(super) fn apply(&self, shared: &Shared) -> Option<Arc<Vec<u8>>> {
        match self.read() {
            Ok(Some(document)) => {
                tracing::info!(hash = %document.hash, file = %self.path.display(), "the last good policy is in force, until etcd answers");
                let document = document.to_json().into_bytes();
                super::apply::apply(shared, &document);
                return Some(Arc::new(document));
            }
            Ok(None) => {}
            Err(problem) => {
                tracing::warn!(file = %self.path.display(), problem, "the last good policy cannot be used");
            }
        }
        None
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

    /// Keeps the file as the newest of `documents`; what could not be written is tried again, and written once more
    /// at the end.
    pub(super) async fn keep(self, mut documents: watch::Receiver<Document>, stop: CancellationToken) {
        let mut kept: Document = None;
        loop {
            let is_newer = |document: &Document| !is_same(document.as_ref(), kept.as_ref());
            let newer = async { documents.wait_for(is_newer).await.is_ok() };
            if stop.run_until_cancelled(newer).await != Some(true) {
                break;
            }
            let newest = documents.borrow().clone();
            if self.write_aside(newest.as_ref()).await {
                kept = newest;
            }
            stop.run_until_cancelled(sleep(PAUSE)).await;
        }
        let newest = documents.borrow().clone();
        if !is_same(newest.as_ref(), kept.as_ref()) {
            self.write_aside(newest.as_ref()).await;
        }
    }

    /// Writes it where it holds up no runtime.
    async fn write_aside(&self, document: Option<&Arc<Vec<u8>>>) -> bool {
        let Some(document) = document.cloned() else { return true };
        let file = self.clone();
        match spawn_blocking(move || file.write(&document)).await {
            Ok(Err(error)) => {
                tracing::warn!(file = %self.path.display(), %error, "the last good policy could not be kept on disk");
                false
            }
            written => written.is_ok(),
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

fn is_same(a: Option<&Arc<Vec<u8>>>, b: Option<&Arc<Vec<u8>>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
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

    #[tokio::test]
    async fn what_could_not_be_written_is_tried_again_and_the_newest_is_there_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file(&folder);
        file.path = folder.path().join("later/policy");
        let (good, kept) = watch::channel(None);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(file.clone().keep(kept, stop.clone()));
        let put = |limit| good.send_replace(Some(Arc::new(document(limit).to_json().into_bytes())));
        put(1);
        tokio::time::sleep(Duration::from_millis(100)).await; // it has failed once, most likely
        fs::create_dir(folder.path().join("later")).unwrap();
        while !file.path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        put(2);
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(file.read().unwrap().map(|document| document.hash), Some(document(2).hash));
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

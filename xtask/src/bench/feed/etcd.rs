//! An etcd of a round's own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::child::Running;
use crate::bench::programs::OTHER;

/// A folder that is empty at first and gone at the end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Made anew: what a run before has left, should it have been killed, is deleted.
    pub fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next run deletes what cannot be deleted now.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running etcd, which ends with this.
#[derive(Debug)]
pub struct Etcd {
    running: Running,
    pub url: String,
}

impl Etcd {
    /// Starts it, on ports that are free just now, with its data in the folder. Without fsync: a disk is not
    /// what is compared, and a faster etcd hides less.
    pub fn start(program: &Path, folder: &Folder) -> Result<Self> {
        // Both at once, so that they differ.
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [url, peer] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().map(|address| format!("http://{address}")));
        drop(listeners);
        let (url, peer) = (url?, peer?);
        let args = [
            format!("--data-dir={}", folder.file("data").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=error".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ];
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let running = Running::start(OTHER, program, &args, Some(&folder.file("etcd.log")))?;
        Ok(Self { running, url })
    }

    /// Why it has ended, if it has.
    pub fn failure(&mut self, folder: &Folder) -> Option<String> {
        let ended = self.running.has_ended().unwrap_or(true);
        let log = fs::read_to_string(folder.file("etcd.log")).unwrap_or_default();
        ended.then(|| format!("etcd has ended: {}", log.lines().last().unwrap_or("it said nothing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_empty_at_first_and_gone_at_the_end() {
        let path = std::env::temp_dir().join(format!("fusebox-bench-test-{}", std::process::id()));
        fs::create_dir_all(path.join("left")).unwrap();
        let folder = Folder::new(path.clone()).unwrap();
        assert!(!folder.file("left").exists() && path.exists());
        drop(folder);
        assert!(!path.exists());
    }
}

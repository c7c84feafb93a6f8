//! A process whose words are kept.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

/// How much of what it said is shown where a test fails.
const SHOWN: usize = 6000;

/// A running process; it ends with this value, and where a test fails its last words are shown.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts it. What it says goes to the file `log`, behind what is there.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id().expect("it was not waited for");
        Self { child, pid, log: log.to_owned() }
    }

    /// Its number, for as long as it was not waited for.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a child of ours")
    }

    /// Ends it at once, by SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child of ours");
    }

    /// Asks it to end, by SIGTERM.
    pub fn ask_to_end(&self) {
        signal("-TERM", self.pid);
    }

    /// What it and those before it said to this log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let from = said.len().saturating_sub(SHOWN);
            let from = (from..=said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or_default();
            eprintln!("the last words in {}:\n{}", self.log.display(), &said[from..]);
        }
    }
}

/// Sends a signal to a process that was not waited for.
pub fn signal(signal: &str, pid: u32) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {pid}");
}

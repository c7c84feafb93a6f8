//! The operator's own process.

use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;

use crate::process::Process;

/// A running operator; it ends with this value, at once.
pub struct Operator {
    process: Process,
    listen: String,
    /// How much its log held before it.
    before: usize,
}

impl Operator {
    /// Starts it with these variables and no others; its log is behind that of those before it.
    pub(crate) fn start(
        program: &Path,
        log: &Path,
        listen: String,
        environment: &[(String, String)],
    ) -> Self {
        let before = std::fs::metadata(log).map_or(0, |log| usize::try_from(log.len()).unwrap());
        let mut command = Command::new(program);
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.env("FUSEBOX_LISTEN", &listen);
        Self { process: Process::start(&mut command, log), listen, before }
    }

    /// Its number, for as long as it was not waited for.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        self.process.wait().await
    }

    /// Ends it at once, by SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Asks it to end, by SIGTERM.
    pub fn ask_to_end(&self) {
        self.process.ask_to_end();
    }

    /// Stops it, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        crate::process::signal(if frozen { "-STOP" } else { "-CONT" }, self.process.pid());
    }

    /// What it said.
    pub fn said(&self) -> String {
        self.process.said().split_off(self.before)
    }

    /// Where its `/metrics`, `/healthz` and `/readyz` are.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }
}

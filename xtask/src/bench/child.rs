//! A program that runs beside us, and ends with us.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fusebox_cluster::process::which;

/// Killed, by its pid, when it is dropped; on Linux by the kernel also when we are killed ourselves.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it on these cores. What it says on standard error goes into the file, or where ours goes.
    pub fn start(cores: &str, program: &Path, args: &[&str], errors: Option<&Path>) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().display().to_string();
        let mut line: Vec<&str> = Vec::new();
        if cfg!(target_os = "linux") && which("setpriv").is_some() {
            line.extend(["setpriv", "--pdeathsig", "KILL", "--"]);
        }
        if which("taskset").is_some() {
            line.extend(["taskset", "-c", cores]);
        }
        let mut command = match line.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(path) = errors {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            command.stderr(file);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        Ok(Self { child, out: BufReader::new(out) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints; an empty one if it has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it ends by itself, and what it printed since; that must fit into a pipe.
    pub fn end(mut self, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > end => bail!("it did not end within {} s", patience.as_secs()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut text = String::new();
        self.out.read_to_string(&mut text)?;
        if !status.success() {
            bail!("{status}");
        }
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then its rows say so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        Running::start("0", Path::new("sh"), &["-c", script], None).unwrap()
    }

    #[test]
    fn its_lines_and_its_end() {
        let mut running = shell("echo port; echo rest");
        assert_eq!(running.line().unwrap(), "port");
        assert_eq!(running.end(Duration::from_mins(1)).unwrap(), "rest\n");
        assert!(shell("exit 3").end(Duration::from_mins(1)).unwrap_err().to_string().contains("status: 3"));
        assert!(shell("sleep 60").end(Duration::ZERO).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn dropped_it_is_gone() {
        let mut running = shell("echo started; exec sleep 60");
        running.line().unwrap();
        let process = Path::new("/proc").join(running.pid().to_string());
        assert!(process.exists());
        drop(running);
        assert!(!process.exists());
    }
}

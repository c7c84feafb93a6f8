//! Running other programs: each with a deadline, each failure with the end of what it printed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program to run, with a deadline.
#[derive(Debug)]
pub struct Exec {
    command: Command,
    name: String,
    deadline: Duration,
    /// How it is named in errors, where that is not the command itself.
    shown: Option<String>,
    input: Option<String>,
}

impl Exec {
    /// The program, with five minutes to end unless told otherwise.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, name, deadline: Duration::from_mins(5), shown: None, input: None }
    }

    /// Add an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Add arguments.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// Set a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Take a variable out of its environment.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Set variables of its environment.
    #[must_use]
    pub fn envs(mut self, vars: &[(String, String)]) -> Self {
        self.command.envs(vars.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Run in a folder.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Kill it when it runs longer.
    #[must_use]
    pub fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// What [`Exec::output`] gives it to read; never shown.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = Some(text.into());
        self
    }

    /// Its standard output; its standard error goes into the error when it fails.
    pub fn output(mut self) -> Result<String> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn()?;
        let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
        if let (Some(text), Some(mut pipe)) = (&self.input, child.stdin.take()) {
            // One that does not read it says why.
            let _ = pipe.write_all(text.as_bytes());
        }
        let status = self.wait(&mut child)?;
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if !status.success() {
            bail!("{}: {status}\n{}", self.shown(), tail(if err.trim().is_empty() { &out } else { &err }));
        }
        Ok(out)
    }

    /// Run it with all it prints in a file; the file's end goes into the error when it fails. It ends with us, also when
    /// we are killed: the next run must not meet one that goes on.
    pub fn logged(mut self, log: &Path) -> Result<()> {
        self.tie();
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        self.command.stdout(file.try_clone()?).stderr(file);
        let mut child = self.spawn()?;
        let status = self.wait(&mut child)?;
        if !status.success() {
            let text = fs::read(log).unwrap_or_default();
            bail!(
                "{}: {status}\n{}\n(all of it: {})",
                self.shown(),
                tail(&String::from_utf8_lossy(&text)),
                log.display()
            );
        }
        Ok(())
    }

    /// Run it with its output where ours goes.
    pub fn shown_live(mut self) -> Result<()> {
        let mut child = self.spawn()?;
        let status = self.wait(&mut child)?;
        if !status.success() {
            bail!("{}: {status}", self.shown());
        }
        Ok(())
    }

    /// Whether it ends well; nothing is shown.
    pub fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn().and_then(|mut child| self.wait(&mut child)).is_ok_and(|status| status.success())
    }

    /// On Linux, let the kernel kill the program when the thread that waits for it is gone.
    fn tie(&mut self) {
        let Some(setpriv) = which("setpriv").filter(|_| cfg!(target_os = "linux")) else { return };
        let mut tied = Command::new(setpriv);
        tied.args(["--pdeathsig", "KILL", "--"])
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => tied.env(name, value),
                None => tied.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            tied.current_dir(dir);
        }
        tied.stdin(Stdio::null());
        self.shown = Some(self.shown());
        self.command = tied;
    }

    fn spawn(&mut self) -> Result<Child> {
        self.command.spawn().with_context(|| format!("cannot run {}", self.name))
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let end = Instant::now() + self.deadline;
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                kill(child)?;
                bail!("{} did not end within {} s", self.shown(), self.deadline.as_secs());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn shown(&self) -> String {
        if let Some(shown) = &self.shown {
            return shown.clone();
        }
        let args: Vec<_> = self.command.get_args().map(OsStr::to_string_lossy).collect();
        format!("{} {}", self.name, args.join(" "))
    }
}

/// Kills it, and what it started: cargo leaves its tests running.
fn kill(child: &mut Child) -> Result<()> {
    let below = below(child.id());
    child.kill()?;
    child.wait()?;
    if !below.is_empty() {
        // One that has ended meanwhile is no failure.
        Command::new("kill").arg("-KILL").args(below).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// The processes that this one and those started, as far as the system tells: on Linux.
fn below(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> =
        children.flat_map(|all| all.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let further = children.iter().filter_map(|child| child.parse().ok()).flat_map(below).collect();
    [children, further].concat()
}

/// The path of a program on PATH.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is to show.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(12);
    lines[from..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_command_and_what_it_said() {
        let error = Exec::new("sh").args(["-c", "echo reason >&2; exit 3"]).output().unwrap_err().to_string();
        assert!(error.starts_with("sh -c echo reason"), "{error}");
        assert!(error.contains("exit status: 3\n    reason"), "{error}");
    }

    #[test]
    fn a_deadline_ends_the_program() {
        let begin = Instant::now();
        let error = Exec::new("sleep").arg("60").deadline(0).output().unwrap_err().to_string();
        assert_eq!(error, "sleep 60 did not end within 0 s");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_it_started_ends_with_it() {
        let mut child = Command::new("sh").args(["-c", "sh -c 'sleep 86399 & wait' & wait"]).spawn().unwrap();
        let patience = Instant::now() + Duration::from_mins(1);
        let mut all = Vec::new();
        while all.len() < 2 {
            assert!(Instant::now() < patience, "{all:?}");
            all = below(child.id());
        }
        kill(&mut child).unwrap();
        // What was killed is a zombie until somebody fetches it.
        let runs = |of: &String| {
            let status = fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
        };
        while all.iter().any(runs) {
            assert!(Instant::now() < patience, "{all:?}");
        }
    }

    #[test]
    fn a_logged_failure_names_the_program_itself_and_its_log() {
        let log = std::env::temp_dir().join(format!("fusebox-process-test-{}.log", std::process::id()));
        let error = Exec::new("sh").args(["-c", "echo why; exit 1"]).logged(&log).unwrap_err().to_string();
        fs::remove_file(&log).unwrap();
        assert!(error.starts_with("sh -c echo why"), "{error}");
        assert!(error.contains("    why\n") && error.contains(&log.display().to_string()), "{error}");
    }
}

//! The two programs whose rows are compared: ours with the Rust peers, and the Go peers'.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use fusebox_cluster::Progress;
use fusebox_cluster::process::{Exec, which};

use super::figure::Figure;
use crate::cargo::cargo;

/// Core 0 has what is measured; a second thread, or what loads it, has core 1.
pub const ONE: &str = "0";
pub const OTHER: &str = "1";
pub const BOTH: &str = "0,1";

/// Programs that are built.
#[derive(Debug)]
pub struct Programs {
    rust: PathBuf,
    /// Or why it could not be built: its rows are then not run.
    go: Result<PathBuf, String>,
    target: PathBuf,
}

impl Programs {
    /// Builds both under the target folder, beside the main workspace's.
    pub fn build(checkout: &Path, progress: Progress) -> Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
        let target = std::path::absolute(target)?.join("bench");
        let folder = target.to_string_lossy();
        progress.step("building bench (release, whole-program optimisation)", || {
            let manifest = ["build", "--release", "--quiet", "--manifest-path", "bench/Cargo.toml"];
            cargo(checkout, &[&manifest[..], &["--target-dir", &folder]].concat())
        })?;
        let go = progress.step("building the Go peers", || go(checkout, &target));
        let go = go.map_err(|error| reason(&error));
        Ok(Self { rust: target.join("release/bench"), go, target })
    }

    /// The rows of both, without figures. Where Go's program is missing: a row of each peer in each of
    /// our cases, not run.
    pub fn list(&self) -> Result<Vec<Figure>> {
        let mut rows = lines(&Exec::new(&self.rust).arg("list").output()?)?;
        match &self.go {
            Ok(program) => {
                let go = lines(&Exec::new(program).arg("list").output()?)?;
                rows.extend(go.into_iter().map(|row| Figure { go: true, ..row }));
            }
            Err(why) => rows.extend(missing(&rows, why)),
        }
        Ok(rows)
    }

    fn of(&self, row: &Figure) -> Result<&Path> {
        if !row.go {
            return Ok(&self.rust);
        }
        self.go.as_deref().map_err(|why| anyhow::anyhow!(why.clone()))
    }

    /// Runs a row once, on one core or as many as it has threads.
    pub fn row(&self, row: &Figure, args: &[&str]) -> Result<Figure> {
        // What puts policies in force beside the calls has a core of its own.
        let cores = if row.threads > 1 || row.bench == "reload" { BOTH } else { ONE };
        let out =
            pinned(cores, self.of(row)?).arg("row").args(row.row()).args(args).deadline(600).output()?;
        lines(&out)?.pop().context("the row printed nothing")
    }

    /// What callgrind says of so many calls.
    pub fn under_callgrind(&self, row: [&str; 3], calls: &str) -> Result<String> {
        let log = self.target.join("callgrind.log");
        let mut file = std::ffi::OsString::from("--callgrind-out-file=");
        file.push(self.target.join("callgrind.out"));
        let counted = ["--collect-atstart=no", "--toggle-collect=*measure*counted*"];
        let valgrind =
            Exec::new("valgrind").args(["--fair-sched=yes", "--tool=callgrind"]).arg(file).args(counted);
        valgrind.arg(&self.rust).arg("row").args(row).args(["--iters", calls]).deadline(300).logged(&log)?;
        Ok(std::fs::read_to_string(log)?)
    }

    /// Starts a server on core 0.
    pub fn serve(&self, row: &Figure, args: &[&str]) -> Result<Server> {
        let server = row.server.as_deref().context("the row has no server")?;
        let program = self.of(row)?;
        let mut command = match which("taskset") {
            Some(taskset) => {
                let mut command = Command::new(taskset);
                command.args(["-c", ONE]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["serve", server]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the server")?;
        let out = child.stdout.take().context("the server has no output")?;
        let mut server = Server { child, port: String::new() };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim().is_empty() {
            bail!("the server told no port");
        }
        line.trim().clone_into(&mut server.port);
        Ok(server)
    }

    /// Loads a server from core 1; what came back.
    pub fn load(&self, server: &Server, args: &[&str]) -> Result<String> {
        let pid = server.child.id().to_string();
        let load = pinned(OTHER, &self.rust).args(["load", &server.port, "--pid", &pid]).args(args);
        load.deadline(120).output()
    }
}

/// A running server, which ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then its rows say so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn go(checkout: &Path, target: &Path) -> Result<PathBuf> {
    if which("go").is_none() {
        bail!("Go is missing");
    }
    let program = target.join("go-peers");
    let build = Exec::new("go").args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
    let build = build.dir(&checkout.join("bench/go")).env("GOFLAGS", "-mod=readonly -buildvcs=false");
    build.env("GOWORK", "off").env("CGO_ENABLED", "0").deadline(15 * 60).output()?;
    Ok(program)
}

fn pinned(cores: &str, program: &Path) -> Exec {
    if which("taskset").is_some() {
        Exec::new("taskset").args(["-c", cores]).arg(program)
    } else {
        Exec::new(program)
    }
}

fn lines(text: &str) -> Result<Vec<Figure>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a row: {line}")))
        .collect()
}

/// The Go peers by the benchmarks that they are in.
const GO_PEERS: [(&str, &[&str]); 4] = [
    ("gobreaker", &["B1", "B3"]),
    ("failsafe-go", &["B1", "B2", "B3"]),
    ("hystrix-go", &["B1", "B2", "B3", "B4", "B10"]),
    ("baseline-go", &["B1", "B2", "B3", "B10"]),
];

fn missing(rows: &[Figure], why: &str) -> Vec<Figure> {
    let ours: Vec<_> = rows.iter().filter(|row| row.subject == "fusebox").collect();
    let of = |(peer, benches): (&str, &[&str])| {
        let cases = ours.iter().filter(|row| benches.contains(&row.bench.as_str()));
        let figures = cases.map(|row| Figure {
            subject: peer.to_owned(),
            version: String::new(),
            window: String::new(),
            not_run: Some(why.to_owned()),
            go: true,
            ..(*row).clone()
        });
        figures.collect::<Vec<_>>()
    };
    GO_PEERS.into_iter().flat_map(of).collect()
}

/// What a table has room for: what the program said, without where it is.
pub fn reason(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    let said = text.lines().find_map(|line| {
        line.strip_prefix("Error: ").or_else(|| line.strip_prefix("error: ")).filter(|said| !said.is_empty())
    });
    match (said, text.contains('\n')) {
        (Some(said), _) => said.to_owned(),
        (None, false) => text,
        (None, true) => "it failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;

    #[test]
    fn a_reason_is_what_the_program_said() {
        let said = |text: &'static str| reason(&anyhow::anyhow!(text));
        assert_eq!(
            said("go-peers row: exit status: 1\nerror: the breaker never opened\n"),
            "the breaker never opened"
        );
        assert_eq!(said("Go is missing"), "Go is missing");
        assert_eq!(said("/a/b: exit status: 1\nwhatever"), "it failed");
    }

    #[test]
    fn a_peer_that_is_missing_is_not_run_in_every_case() {
        let rows = [ns("B2", "ready", "fusebox", 1.0), ns("B2", "ready", "tower", 1.0)];
        let missing = missing(&rows, "Go is missing");
        let subjects: Vec<_> = missing.iter().map(|row| row.subject.as_str()).collect();
        assert_eq!(subjects, ["failsafe-go", "hystrix-go", "baseline-go"]);
        assert!(missing.iter().all(|row| row.go && row.not_run.as_deref() == Some("Go is missing")));
    }
}

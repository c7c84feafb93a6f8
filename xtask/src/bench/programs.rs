//! The two programs whose rows are compared: ours with the Rust peers, and the Go peers'.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fusebox_cluster::Progress;
use fusebox_cluster::process::{Exec, which};

use super::child::Running;
use super::figure::Figure;
use crate::cargo::cargo;

/// Core 0 has what is measured; a second thread, or what loads it, has core 1.
pub const ONE: &str = "0";
pub const OTHER: &str = "1";
pub const BOTH: &str = "0,1";

/// Which programs, by the names that `bench/` has for them.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// The Rust program, and the feature it needs.
    pub rust: &'static str,
    pub feature: &'static str,
    /// The folder of the Go program, and its name when it is built; None: it has no peers in Go.
    pub go: Option<[&'static str; 2]>,
}

/// Those of the library's benchmark.
pub const LIBRARY: Suite = Suite { rust: "bench", feature: "", go: Some(["bench/go", "go-peers"]) };
/// Those of the feed's.
pub const FEED: Suite = Suite { rust: "feed", feature: "feed", go: Some(["bench/go-feed", "go-feed"]) };
/// Those of the channel's.
pub const CHANNEL: Suite = Suite { rust: "channel", feature: "channel", go: None };

/// Programs that are built.
#[derive(Debug)]
pub struct Programs {
    rust: PathBuf,
    /// Or why it could not be built: its rows are then not run.
    go: Result<PathBuf, String>,
    /// The target folder of all that is built for benchmarks.
    pub target: PathBuf,
}

impl Programs {
    /// Builds both under the target folder, beside the main workspace's.
    pub fn build(checkout: &Path, suite: Suite, progress: Progress) -> Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
        let target = std::path::absolute(target)?.join("bench");
        let folder = target.to_string_lossy();
        progress.step("building bench (release, whole-program optimisation)", || {
            let manifest = ["build", "--release", "--quiet", "--manifest-path", "bench/Cargo.toml"];
            let what = ["--bin", suite.rust, "--features", suite.feature, "--target-dir", &folder];
            cargo(checkout, &[&manifest[..], &what].concat())
        })?;
        let go = match suite.go {
            Some(suite) => progress.step("building the Go peers", || go(checkout, suite, &target)),
            None => Err(anyhow::anyhow!("there are none")),
        };
        let go = go.map_err(|error| reason(&error));
        Ok(Self { rust: target.join("release").join(suite.rust), go, target })
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

    /// Ours.
    pub fn rust(&self) -> &Path {
        &self.rust
    }

    /// The program that has the row.
    pub fn of(&self, row: &Figure) -> Result<&Path> {
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
        let args = [&["serve", server], args].concat();
        let mut running = Running::start(ONE, self.of(row)?, &args, None)?;
        let port = running.line()?;
        if port.is_empty() {
            bail!("the server told no port");
        }
        Ok(Server { running, port })
    }

    /// Loads a server from core 1; what came back.
    pub fn load(&self, server: &Server, args: &[&str]) -> Result<String> {
        let pid = server.running.pid().to_string();
        let load = pinned(OTHER, &self.rust).args(["load", &server.port, "--pid", &pid]).args(args);
        load.deadline(120).output()
    }
}

/// A running server, which ends with this.
#[derive(Debug)]
pub struct Server {
    running: Running,
    port: String,
}

fn go(checkout: &Path, [folder, name]: [&str; 2], target: &Path) -> Result<PathBuf> {
    if which("go").is_none() {
        bail!("Go is missing");
    }
    let program = target.join(name);
    let build = Exec::new("go").args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
    let build = build.dir(&checkout.join(folder)).env("GOFLAGS", "-mod=readonly -buildvcs=false");
    build.env("GOWORK", "off").env("CGO_ENABLED", "0").deadline(15 * 60).output()?;
    Ok(program)
}

/// On these cores, where the machine has the means.
pub fn pinned(cores: &str, program: &Path) -> Exec {
    if which("taskset").is_some() {
        Exec::new("taskset").args(["-c", cores]).arg(program)
    } else {
        Exec::new(program)
    }
}

/// The rows that a program has printed.
pub fn lines(text: &str) -> Result<Vec<Figure>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a row: {line}")))
        .collect()
}

/// The Go peers by the benchmarks that they are in.
const GO_PEERS: [(&str, &[&str]); 7] = [
    ("gobreaker", &["B1", "B3"]),
    ("failsafe-go", &["B1", "B2", "B3"]),
    ("hystrix-go", &["B1", "B2", "B3", "B4", "B10"]),
    ("baseline-go", &["B1", "B2", "B3", "B10"]),
    ("etcd-watch-go", &["B5"]),
    ("viper", &["B5"]),
    ("viper-loop", &["B5"]),
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

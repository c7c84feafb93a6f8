//! The processes: a program of go-micro, and the roles of ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use fusebox_policy::keys::Ident;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::operator::CLUSTER;
use crate::support;

const GO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/go-micro");

/// The program of e2e/go-micro, built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-micro");
        let mut build = std::process::Command::new("go");
        build.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").current_dir(GO);
        let output = build.env("GOFLAGS", "-mod=readonly -buildvcs=false").output().expect(
            "these tests build e2e/go-micro: install Go as new as e2e/go-micro/go.mod says, and put `go` on the PATH",
        );
        assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

/// A process whose lines are read; it ends with this value.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn spawn(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take(), child, lines }
    }

    /// go-micro, as `client` or `server` of a service.
    pub fn go_micro(role: &str, consul: &str, service: &str) -> Self {
        let mut command = Command::new(program());
        // What it logs of its own is no answer.
        command.args([role, consul, service]).stderr(Stdio::null());
        Self::spawn(command)
    }

    /// The next line; None: it ended.
    pub async fn line(&mut self) -> Option<String> {
        timeout(Duration::from_mins(2), self.lines.next_line()).await.expect("it says nothing").unwrap()
    }

    /// The rest of the next line that has `text`.
    pub async fn says(&mut self, text: &str) -> String {
        loop {
            let line = self.line().await.unwrap_or_else(|| panic!("it ended before {text:?}"));
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    async fn tell(&mut self, line: &str) {
        self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// What go-micro's client answers to a line.
    pub async fn ask(&mut self, line: &str) -> Value {
        self.tell(line).await;
        serde_json::from_str(&self.line().await.unwrap_or_else(|| panic!("it ended at {line:?}"))).unwrap()
    }

    /// Asks what ends it, and waits for its end. Says whether it was a good one.
    pub async fn asked_to_death(mut self, line: &str) -> bool {
        self.tell(line).await;
        assert_eq!(self.line().await, None, "an answer to {line:?}");
        self.child.wait().await.unwrap().success()
    }

    /// Ends it in order.
    pub async fn terminate(mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        assert!(self.child.wait().await.unwrap().success());
    }
}

fn role(role: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.arg(role).env_clear().env("LISTEN", "127.0.0.1:0").env("ADMIN_LISTEN", "127.0.0.1:0");
    command
}

/// With the policies of `resource`.
fn policed(name: &str, etcd: &str, resource: &Ident) -> Command {
    let mut command = role(name);
    command
        .env("FUSEBOX_SERVICE", resource.to_string())
        .env("FUSEBOX_CLUSTER", CLUSTER)
        .env("FUSEBOX_ETCD", etcd);
    command.env("POD_NAME", format!("{name}-0")).env("POD_UID", "uid-0").env("POD_IP", "127.0.0.1");
    // It is ready with a policy from etcd, or not in this test's time.
    command.env("POLICY_WAIT", "600");
    command
}

async fn listening(program: &mut Program) -> SocketAddr {
    program.says("listening address=").await.parse().unwrap()
}

/// A user store that is as slow and failing as it is told.
pub struct Store {
    url: String,
    admin: String,
    _program: Program,
}

impl Store {
    pub async fn start() -> Self {
        let mut command = role("store");
        command.env("STORE_ADMIN", "true");
        let mut program = Program::spawn(command);
        let url = format!("http://{}", listening(&mut program).await);
        let admin = format!("http://{}/admin/behaviour", listening(&mut program).await);
        Self { url, admin, _program: program }
    }

    pub async fn behave(&self, delay_ms: u32, fail_percent: u32) {
        let body = json!({ "delayMs": delay_ms, "failPercent": fail_percent }).to_string();
        assert_eq!(support::request(Method::PUT, &self.admin, &body).await.0, StatusCode::OK);
    }
}

/// A user service under the policy of `resource`, and where it listens.
pub async fn user_service(etcd: &str, resource: &Ident, store: &Store) -> (Program, SocketAddr) {
    let mut command = policed("serve", etcd, resource);
    command.env("USER_STORE_URL", &store.url);
    let mut program = Program::spawn(command);
    let address = listening(&mut program).await;
    program.says(": ready").await;
    (program, address)
}

/// A caller under the policy of `resource` that finds `service` in Consul, and its address.
pub async fn caller(etcd: &str, resource: &Ident, consul: &str, service: &str) -> (Program, String) {
    let mut command = policed("caller", etcd, resource);
    command.env("CONSUL_HTTP_ADDR", consul).env("USER_SERVICE_NAME", service);
    let mut program = Program::spawn(command);
    let url = format!("http://{}", listening(&mut program).await);
    program.says(": ready").await;
    (program, url)
}

//! A real Consul of a test's own.
#![allow(dead_code, missing_docs)] // each test binary uses a part

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// A running server; it ends with this value.
pub struct Consul {
    folder: TempDir,
    port: u16,
    others: [u16; 3],
    settings: Vec<String>,
    child: Option<Child>,
}

impl Consul {
    /// A server that answers, with these settings on top.
    pub async fn start(settings: &[&str]) -> Self {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<_> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(held);
        let mut consul = Self {
            folder: tempfile::tempdir().unwrap(),
            port: ports[0],
            others: [ports[1], ports[2], ports[3]],
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            child: None,
        };
        consul.run().await;
        consul
    }

    /// Starts it on the data it has, and waits until it leads.
    pub async fn run(&mut self) {
        let [rpc, lan, wan] = self.others;
        let folder = self.folder.path();
        let said = std::fs::File::create(folder.join("said")).unwrap();
        let child = Command::new(fusebox_cluster::tools::find("consul").unwrap())
            .args(["agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-node=consul", "-log-level=warn", "-hcl=disable_update_check = true"])
            .arg(format!("-data-dir={}", folder.join("data").display()))
            .args([format!("-http-port={}", self.port), format!("-server-port={rpc}")])
            .args([format!("-serf-lan-port={lan}"), format!("-serf-wan-port={wan}")])
            .args(["-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1"])
            .args([
                "-hcl=performance { raft_multiplier = 1 }",
                "-hcl=limits { http_max_conns_per_client = 2000 }",
            ])
            .args(self.settings.iter().map(|setting| format!("-hcl={setting}")))
            .stdout(said)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let leads = timeout(Duration::from_mins(2), async {
            while !self.answers().await {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "Consul ended: {}", self.said());
                sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(leads.await.is_ok(), "Consul does not answer: {}", self.said());
    }

    async fn answers(&self) -> bool {
        let ask = async { self.try_ask("GET", "/v1/status/leader", "").await };
        matches!(timeout(Duration::from_secs(2), ask).await, Ok(Some((200, text))) if text.len() > 2)
            && matches!(self.try_ask("GET", "/v1/catalog/services", "").await, Some((200 | 403, _)))
    }

    /// Stops the process without closing anything: it is silent, and the kernel still accepts for it.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.as_ref().unwrap().id().unwrap().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it, by its pid; the data stays.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Deletes the data of a server that is not running.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The answer's status and text.
    async fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let (head, text) = self.exchange(method, path, "", body).await?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, text))
    }

    async fn exchange(&self, method: &str, path: &str, token: &str, body: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let token = if token.is_empty() { String::new() } else { format!("X-Consul-Token: {token}\r\n") };
        // The old version of HTTP: one answer, unchunked, then the end.
        let request =
            format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split_once("\r\n\r\n").map(|(head, text)| (head.to_owned(), text.to_owned()))
    }

    /// The answer, which must be good.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask_as("", method, path, body).await
    }

    /// The answer to somebody with this token, which must be good.
    pub async fn ask_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (head, text) = self.exchange(method, path, token, &body).await.unwrap();
        assert!(head.contains(" 200 "), "{method} {path}: {head} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Whether it takes this token by now: it makes its first one some time after it leads.
    pub async fn takes(&self, token: &str) -> bool {
        let answer = self.exchange("GET", "/v1/acl/token/self", token, "").await;
        answer.is_some_and(|(head, _)| head.contains(" 200 "))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).await
    }

    /// `X-Consul-Index` of an answer: it stands still while what was asked for does.
    pub async fn index(&self, path: &str) -> u64 {
        let (head, _) = self.exchange("GET", path, "", "").await.unwrap();
        let value = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-consul-index").then(|| value.trim().parse().ok())?
        };
        head.lines().find_map(value).unwrap_or_else(|| panic!("no index of {path}: {head}"))
    }
}

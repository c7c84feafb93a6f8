//! A real etcd of a test's own, and a wire to it that can be cut.
#![allow(dead_code, missing_docs)] // each test binary uses a part

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A running etcd; it ends with this value.
pub struct Etcd {
    folder: TempDir,
    port: u16,
    peer: u16,
    arguments: Vec<String>,
    scheme: &'static str,
    child: Option<Child>,
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// An etcd that is not running yet.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, peer) = (free_port().await, free_port().await);
        Self { folder, port, peer, arguments: Vec::new(), scheme: "http", child: None }
    }

    /// An etcd that answers.
    pub async fn start() -> Self {
        let mut etcd = Self::new().await;
        etcd.run().await;
        etcd
    }

    /// One more argument of its command line.
    pub fn argument(&mut self, argument: impl Into<String>) {
        self.arguments.push(argument.into());
    }

    /// Serves TLS with this certificate and key. Called again it replaces the files.
    pub fn tls(&mut self, certificate: &str, key: &str) {
        for (name, pem) in [("cert-file", certificate), ("key-file", key)] {
            let path = self.write(name, pem);
            if self.scheme == "http" {
                self.argument(format!("--{name}={path}"));
            }
        }
        self.scheme = "https";
    }

    /// A file in its folder; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// Starts it on the data it has, and waits until it answers.
    pub async fn run(&mut self) {
        self.run_locked().await;
        if self.scheme == "http" {
            eventually("etcd answers", async || {
                let get = async { self.client().await.get("x", None).await };
                matches!(timeout(Duration::from_secs(1), get).await, Ok(Ok(_)))
            })
            .await;
        }
    }

    /// Starts it, and waits until it listens: one that answers only to those it knows.
    pub async fn run_locked(&mut self) {
        let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer));
        let child = Command::new(fusebox_cluster::tools::find("etcd").unwrap())
            .arg(format!("--data-dir={}", self.folder.path().join("data").display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(["--log-level=error", "--unsafe-no-fsync"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually("etcd listens", async || TcpStream::connect(self.address()).await.is_ok()).await;
    }

    /// Ends it, by its pid; the data stays.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Deletes the data of an etcd that is not running.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    /// Stops the process without closing anything: it is silent, and the kernel still accepts for it.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.as_ref().unwrap().id().unwrap().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Its metrics, as Prometheus reads them.
    #[allow(dead_code)] // not every test counts
    pub async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// What it has used of processors, and holds of memory: hundredths of a second, KiB.
    #[allow(dead_code)] // not every test weighs
    pub fn weight(&self) -> (u64, u64) {
        weight(&self.child.as_ref().unwrap().id().unwrap().to_string())
    }

    pub async fn client(&self) -> Client {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
        Client::connect([self.url()], Some(options)).await.unwrap()
    }
}

/// A wire to an etcd, which can be cut.
pub struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Wire {
    pub async fn to(etcd: &Etcd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, is_whole) = watch::channel(true);
        let target = etcd.address();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_whole = is_whole.clone();
                tokio::spawn(async move {
                    if !*is_whole.borrow_and_update() {
                        return;
                    }
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_whole.changed() => {}
                    }
                });
            }
        });
        Self { address, whole }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks every connection and lets none through, or lets new ones through.
    pub fn cut(&self, cut: bool) {
        self.whole.send_replace(!cut);
    }
}

/// What a process has used of processors, and holds of memory: hundredths of a second, KiB.
#[allow(dead_code)] // not every test weighs
pub fn weight(process: &str) -> (u64, u64) {
    let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let (stat, status) = (read("stat"), read("status"));
    // Behind the name, which may hold spaces: user and system time are the 12th and 13th.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let used = [11, 12].map(|field| fields[field].parse::<u64>().unwrap());
    let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")).unwrap();
    (used[0] + used[1], held.trim().parse().unwrap())
}

/// The value of one line of metrics, its labels included; zero if it is not there.
#[allow(dead_code)] // not every test counts
pub fn counted(metrics: &str, line: &str) -> u64 {
    let value = metrics.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    value.map_or(0, |value| value as u64)
}

/// Waits for what must happen, far longer than it ever takes.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = timeout(Duration::from_mins(1), async {
        while !done().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

//! The stage of real processes over a real etcd, in real time. Many schedules share one etcd, each under a
//! cluster's name of its own; what ends etcd ends it for all of them and is not a schedule's to do.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::{Client, CompactionOptions, Compare, CompareOp, GetResponse, Txn, TxnOp};
use fusebox::etcd::EtcdConfig;
use fusebox_operator::ports::Unavailable;
use fusebox_policy::keys::{Ident, Keys};
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};

use crate::operator::{Cluster, Operator, Store, Told};
use crate::proxy::Proxy;
use crate::schedule::Data;
use crate::stage;
use crate::wire::Line;

/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// As the operator's, for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The stage.
pub struct Processes {
    /// The cluster's name.
    pub cluster: String,
    /// etcd's address.
    pub etcd: SocketAddr,
    /// To write past the wires.
    pub client: Client,
    /// The program of an instance.
    pub program: PathBuf,
    /// How many operators there were.
    pub operators: u64,
}

impl Processes {
    /// Until it is done: etcd may just be away.
    fn past_the_wires<F>(&self, act: impl Fn(Client) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), etcd_client::Error>> + Send,
    {
        let client = self.client.clone();
        tokio::spawn(async move {
            while act(client.clone()).await.is_err() {
                sleep(AGAIN).await;
            }
        });
    }
}

impl stage::Stage for Processes {
    type Wire = Proxy;
    type Process = Instance;

    fn keys(&self) -> Keys {
        Keys::new(&self.cluster)
    }

    #[allow(clippy::expect_used, reason = "a machine without a free port fails its test")]
    fn wire(&mut self) -> Proxy {
        Proxy::to(self.etcd).expect("a port of this machine")
    }

    fn set(&self, wire: &Proxy, line: Line) {
        wire.set(line);
    }

    fn blip(&self, wire: &Proxy) {
        wire.blip();
    }

    fn start(&mut self, of: &Ident, uid: &str, wire: &Proxy) -> Result<Instance, String> {
        let mut child = Command::new(&self.program)
            .env_clear()
            .env("FUSEBOX_SERVICE", of.to_string())
            .env("FUSEBOX_CLUSTER", &self.cluster)
            .env("FUSEBOX_ETCD", wire.url())
            .env("POD_UID", uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let ran = Arc::<Mutex<Ran>>::default();
        if let Some(stdout) = child.stdout.take() {
            let ran = Arc::clone(&ran);
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
                    ran.has_policy = true;
                    ran.now = line.parse().ok();
                    let now = ran.now;
                    ran.since.extend(now);
                }
            });
        }
        Ok(Instance { child: Some(child), ran })
    }

    fn operator(
        &mut self,
        of: &Ident,
        wire: &Proxy,
        cluster: watch::Receiver<Cluster>,
        told: watch::Sender<Told>,
    ) -> Operator {
        self.operators += 1;
        let epoch = format!("{:06}", self.operators);
        let config = EtcdConfig::new([wire.url()]);
        let store = Writer { keys: self.keys(), config: config.clone(), client: None, epoch, raised: false };
        Operator::start(of, self.keys(), config, store, cluster, told)
    }

    fn write(&self, key: &str, value: Option<String>) {
        let txn = Txn::new().and_then([match value {
            Some(value) => TxnOp::put(key, value, None),
            None => TxnOp::delete(key, None),
        }]);
        self.past_the_wires(move |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await.map(drop) }
        });
    }

    fn end_lease(&self, key: &str) {
        let key = key.to_owned();
        self.past_the_wires(move |mut client| {
            let key = key.clone();
            async move {
                let found = client.get(key, None).await?;
                match found.kvs().first().map(etcd_client::KeyValue::lease) {
                    Some(lease) if lease != 0 => client.lease_revoke(lease).await.map(drop),
                    _ => Ok(()),
                }
            }
        });
    }

    fn compact(&self) {
        self.past_the_wires(|mut client| async move {
            let revision =
                client.get("x", None).await?.header().map_or(0, etcd_client::ResponseHeader::revision);
            match client.compact(revision, Some(CompactionOptions::new())).await {
                // Another schedule was faster.
                Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("compacted") => {
                    Ok(())
                }
                done => done.map(drop),
            }
        });
    }

    fn stop_etcd(&self, _: Data) {}

    fn run_etcd(&self) {}

    fn back_up(&self) {}

    fn writes(&self) -> Option<(u64, Vec<String>)> {
        None
    }
}

#[derive(Debug, Default)]
struct Ran {
    now: Option<u64>,
    since: Vec<u64>,
    has_policy: bool,
    trouble: Option<String>,
}

/// A process of the system. It ends with this value.
#[derive(Debug)]
pub struct Instance {
    child: Option<Child>,
    ran: Arc<Mutex<Ran>>,
}

impl Instance {
    fn signal(&mut self, signal: &str) {
        let Some(child) = &self.child else { return };
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        if !sent.is_ok_and(|status| status.success()) {
            self.ran.lock().unwrap_or_else(PoisonError::into_inner).trouble =
                Some(format!("kill {signal} failed"));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl stage::Process for Instance {
    fn has_policy(&self) -> bool {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).has_policy
    }

    fn ran(&mut self) -> Result<Vec<u64>, String> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            return Err(format!("an instance ended by itself: {status}"));
        }
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = ran.trouble.take() {
            return Err(trouble);
        }
        let now = ran.now;
        Ok(std::mem::take(&mut ran.since).into_iter().chain(now).collect())
    }

    fn freeze(&mut self, frozen: bool) {
        self.signal(if frozen { "-STOP" } else { "-CONT" });
    }

    fn kill(self) {}

    fn end(mut self) {
        self.signal("-CONT");
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        std::thread::spawn(move || child.wait());
    }
}

/// The operator's way to its policy, fenced by an epoch as the real one.
struct Writer {
    keys: Keys,
    config: EtcdConfig,
    client: Option<Client>,
    /// In digits that sort as numbers do.
    epoch: String,
    raised: bool,
}

impl Writer {
    /// After a failure the next one connects anew.
    async fn txn(&mut self, txn: Txn) -> Result<etcd_client::TxnResponse, Unavailable> {
        let done = async {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => fusebox::etcd::connect(&self.config).await?,
            };
            let done = client.txn(txn).await?;
            Ok::<_, fusebox::etcd::EtcdError>((client, done))
        };
        match timeout(ANSWER, Box::pin(done)).await {
            Ok(Ok((client, done))) => {
                self.client = Some(client);
                Ok(done)
            }
            Ok(Err(error)) => Err(Unavailable(error.to_string())),
            Err(_) => Err(Unavailable("no answer".to_owned())),
        }
    }
}

impl Store for Writer {
    async fn read(&mut self, of: &Ident) -> Result<Option<String>, Unavailable> {
        let done = self.txn(Txn::new().and_then([TxnOp::get(self.keys.policy(of), None)])).await?;
        Ok(done.op_responses().first().and_then(|response| {
            let etcd_client::TxnOpResponse::Get(found) = response else { return None };
            GetResponse::kvs(found).first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned())
        }))
    }

    async fn publish(&mut self, of: &Ident, json: &str) -> Result<bool, Unavailable> {
        let (fence, mine) = (self.keys.epoch(), self.epoch.clone());
        if !self.raised {
            let higher = Compare::value(fence.as_str(), CompareOp::Greater, mine.as_str());
            let raise = TxnOp::put(fence.as_str(), mine.as_str(), None);
            if self.txn(Txn::new().when([higher]).or_else([raise])).await?.succeeded() {
                return Ok(false);
            }
            self.raised = true;
        }
        let is_mine = Compare::value(fence, CompareOp::Equal, mine);
        let put = TxnOp::put(self.keys.policy(of), json, None);
        let written = self.txn(Txn::new().when([is_mine]).and_then([put])).await?.succeeded();
        self.raised = written;
        Ok(written)
    }
}

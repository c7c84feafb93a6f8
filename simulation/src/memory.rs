//! The stage in memory, in virtual time.

use std::time::Duration;

use fusebox::Fusebox;
use fusebox::etcd::Link;
use fusebox_operator::ports::Unavailable;
use fusebox_policy::keys::{Ident, Keys};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::etcd::Etcd;
use crate::operator::{Cluster, Operator, Store, Told};
use crate::policies::{CLUSTER, Ran, in_force};
use crate::schedule::Data;
use crate::stage;
use crate::wire::{Life, Line, Session, Wire};

/// How things travel when all is well.
const QUICK: Duration = Duration::from_millis(2);
/// As the operator's, for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The stage.
#[derive(Debug)]
pub struct Memory {
    etcd: Etcd,
    random: fastrand::Rng,
    wires: Vec<Wire>,
}

impl Memory {
    /// One with everything in order.
    pub fn new(seed: u64) -> Self {
        Self { etcd: Etcd::start(), random: fastrand::Rng::with_seed(seed), wires: Vec::new() }
    }
}

impl Memory {
    /// What a key of etcd holds.
    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.etcd.get(key).map(|(value, _)| value)
    }
}

impl stage::Stage for Memory {
    type Wire = Wire;
    type Process = Instance;

    fn keys(&self) -> Keys {
        Keys::new(CLUSTER)
    }

    fn wire(&mut self) -> Wire {
        let wire = Wire::to(&self.etcd, QUICK, self.random.u64(..));
        self.wires.push(wire.clone());
        wire
    }

    fn set(&self, wire: &Wire, line: Line) {
        wire.set(line);
    }

    fn blip(&self, wire: &Wire) {
        wire.break_all();
    }

    fn start(&mut self, of: &Ident, uid: &str, wire: &Wire) -> Result<Instance, String> {
        let wire = wire.for_another_process();
        let get = |variable: &str| match variable {
            "FUSEBOX_SERVICE" => Some(of.to_string()),
            "FUSEBOX_CLUSTER" => Some(CLUSTER.to_owned()),
            "FUSEBOX_ETCD" => Some("http://in-memory:2379".to_owned()),
            "POD_UID" => Some(uid.to_owned()),
            _ => None,
        };
        let fusebox = Fusebox::linked(get, wire.clone()).map_err(|error| error.to_string())?;
        Ok(Instance { ran: Ran::record(&fusebox), fusebox, wire })
    }

    fn operator(
        &mut self,
        of: &Ident,
        wire: &Wire,
        cluster: watch::Receiver<Cluster>,
        told: watch::Sender<Told>,
    ) -> Operator {
        let wire = wire.for_another_process();
        let store = Writer { keys: self.keys(), wire: wire.clone(), connection: None, epoch: None };
        let ends = wire.clone();
        Operator::start(of, self.keys(), wire, store, cluster, told).ends_with(move || ends.live(Life::Dead))
    }

    fn write(&self, key: &str, value: Option<String>) {
        match value {
            Some(value) => drop(self.etcd.put(key, value.into_bytes(), 0)),
            None => self.etcd.delete(key),
        }
    }

    fn end_lease(&self, key: &str) {
        self.etcd.expire(key);
    }

    fn compact(&self) {
        self.etcd.compact();
    }

    fn stop_etcd(&self, data: Data) {
        match data {
            Data::Kept => {}
            Data::Wiped => self.etcd.wipe(),
            Data::Restored => self.etcd.restore(),
        }
        self.etcd.stop();
        self.wires.iter().for_each(Wire::break_all);
    }

    fn run_etcd(&self) {
        self.etcd.run();
    }

    fn back_up(&self) {
        self.etcd.back_up();
    }

    fn writes(&self) -> Option<(u64, Vec<String>)> {
        Some((self.etcd.puts(), self.etcd.newest(6)))
    }
}

/// A process in memory: it dies and freezes at its end of the wire.
#[derive(Debug)]
pub struct Instance {
    fusebox: Fusebox,
    wire: Wire,
    ran: Ran,
}

impl stage::Process for Instance {
    fn has_policy(&self) -> bool {
        self.fusebox.policy_hash().is_some()
    }

    fn ran(&mut self) -> Result<Vec<u64>, String> {
        let mut ran = self.ran.take();
        ran.extend(in_force(&self.fusebox)?);
        Ok(ran)
    }

    fn freeze(&mut self, frozen: bool) {
        self.wire.live(if frozen { Life::Frozen } else { Life::Running });
    }

    fn kill(self) {
        self.wire.live(Life::Dead);
    }

    fn end(self) {
        tokio::spawn(async move {
            self.fusebox.shutdown().await;
            self.wire.live(Life::Dead);
        });
    }
}

/// The operator's way to its policy, fenced by an epoch as the real one.
struct Writer {
    keys: Keys,
    wire: Wire,
    connection: Option<Session>,
    epoch: Option<u64>,
}

impl Store for Writer {
    async fn read(&mut self, of: &Ident) -> Result<Option<String>, Unavailable> {
        let key = self.keys.policy(of);
        let found = self.ask(move |etcd| etcd.get(&key)).await?;
        Ok(found.map(|(value, _)| String::from_utf8_lossy(&value).into_owned()))
    }

    async fn publish(&mut self, of: &Ident, json: &str) -> Result<bool, Unavailable> {
        let (key, fence, json, mine) = (self.keys.policy(of), self.keys.epoch(), json.to_owned(), self.epoch);
        let write = move |etcd: &Etcd| {
            let epoch = etcd.get(&fence).and_then(|(value, _)| serde_json::from_slice::<u64>(&value).ok());
            let mine = match mine {
                Some(mine) if epoch == Some(mine) => mine,
                // Another took over, be it by a write that a dead one had sent: the process ends and starts anew.
                Some(mine) if epoch.is_some_and(|epoch| epoch > mine) => return (None, false),
                // Lower or none: the store is new to this process, or was restored.
                _ => epoch.max(mine).unwrap_or_default() + 1,
            };
            etcd.put(&fence, mine.to_string().into_bytes(), 0);
            (Some(mine), etcd.put(&key, json.into_bytes(), 0))
        };
        let (epoch, written) = self.ask(write).await?;
        self.epoch = epoch;
        Ok(written)
    }
}

impl Writer {
    /// After a failure the next one connects anew.
    async fn ask<T: Send + 'static>(
        &mut self,
        request: impl FnOnce(&Etcd) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let asked = async {
            let connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.wire.open().await?,
            };
            let answer = connection.call(request).await?;
            Ok::<_, fusebox::etcd::EtcdError>((connection, answer))
        };
        match timeout(ANSWER, asked).await {
            Ok(Ok((connection, answer))) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Err(error)) => Err(Unavailable(error.to_string())),
            Err(_) => Err(Unavailable("no answer".to_owned())),
        }
    }
}

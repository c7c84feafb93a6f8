//! The way of one process to etcd: slow, silent or cut; and the process at its end: running, frozen or dead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fusebox::etcd::{Connection, EtcdError, Lease, Link, Message, Page, PageRequest, Range, Watch};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::etcd::{Etcd, Heard};

/// How a wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Everything takes up to this long, each way.
    Whole(Duration),
    /// Nothing arrives, and nobody is told.
    Silent,
    /// Connections are broken and none is made.
    Cut,
}

/// How the process at its end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It was stopped and may go on.
    Frozen,
    /// It was killed.
    Dead,
}

/// A wire. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Wire {
    etcd: Etcd,
    line: Arc<watch::Sender<Line>>,
    life: Arc<watch::Sender<Life>>,
    /// Raised whenever every connection breaks.
    epoch: Arc<watch::Sender<u64>>,
    random: Arc<Mutex<fastrand::Rng>>,
}

/// What a call waits for in vain on a broken connection.
struct Broken;

impl Wire {
    /// A wire on which everything takes up to `slow`.
    pub fn to(etcd: &Etcd, slow: Duration, seed: u64) -> Self {
        Self {
            etcd: etcd.clone(),
            line: Arc::new(watch::Sender::new(Line::Whole(slow))),
            life: Arc::new(watch::Sender::new(Life::Running)),
            epoch: Arc::default(),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        }
    }

    /// The same line with a new process at its end.
    #[must_use]
    pub fn for_another_process(&self) -> Self {
        Self { life: Arc::new(watch::Sender::new(Life::Running)), ..self.clone() }
    }

    /// Changes how the wire is. Of two silent ones one is noticed by the keep-alive of its connections, within six
    /// seconds.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
        match line {
            Line::Whole(_) => {}
            Line::Cut => self.break_all(),
            Line::Silent if self.up_to(1) == 0 => {}
            Line::Silent => {
                let wire = self.clone();
                let after = Duration::from_millis(self.up_to(3000) + 3000);
                let epoch = *self.epoch.borrow();
                tokio::spawn(async move {
                    sleep(after).await;
                    if *wire.line.borrow() == Line::Silent && *wire.epoch.borrow() == epoch {
                        wire.break_all();
                    }
                });
            }
        }
    }

    /// Every connection ends, new ones are made.
    pub fn break_all(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Stops, continues or kills the process.
    pub fn live(&self, life: Life) {
        self.life.send_if_modified(|now| *now != Life::Dead && std::mem::replace(now, life) != life);
    }

    fn up_to(&self, most: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(0..=most)
    }

    /// Waits while the process does not run: for ever if it is dead.
    async fn awake(&self) {
        let mut life = self.life.subscribe();
        if life.wait_for(|life| *life == Life::Running).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// One way through the wire, on a connection of this epoch.
    async fn travel(&self, epoch: u64) -> Result<(), Broken> {
        let now = *self.line.borrow();
        if let Line::Whole(slow) = now {
            let slow = u64::try_from(slow.as_micros()).unwrap_or_default();
            let delay = Duration::from_micros(self.up_to(slow));
            sleep(delay).await;
        }
        let mut line = self.line.subscribe();
        let passes = async { line.wait_for(|line| matches!(line, Line::Whole(_))).await.is_ok() };
        let mut epochs = self.epoch.subscribe();
        tokio::select! {
            biased;
            _ = epochs.wait_for(|now| *now != epoch) => Err(Broken),
            _ = passes => Ok(()),
        }
    }
}

fn broken() -> EtcdError {
    EtcdError::Ended("the connection broke".to_owned())
}

/// A connection over a [`Wire`].
#[derive(Clone, Debug)]
pub struct Session {
    wire: Wire,
    epoch: u64,
}

impl Link for Wire {
    type Connection = Session;

    async fn open(&self) -> Result<Session, EtcdError> {
        self.awake().await;
        let connection = Session { wire: self.clone(), epoch: *self.epoch.borrow() };
        connection.call(|_| ()).await?;
        Ok(connection)
    }
}

impl Session {
    /// A request and its answer. Once sent it is on its way: it takes place even if nobody waits any more.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Etcd) -> T + Send + 'static,
    ) -> Result<T, EtcdError> {
        self.wire.awake().await;
        let (answer, answered) = oneshot::channel();
        let Self { wire, epoch } = self.clone();
        let sent = async move {
            wire.travel(epoch).await?;
            if !wire.etcd.is_up() {
                return Err(Broken);
            }
            let done = request(&wire.etcd);
            wire.travel(epoch).await?;
            let _ = answer.send(done);
            Ok(())
        };
        tokio::spawn(sent);
        let answer = answered.await;
        self.wire.awake().await;
        answer.map_err(|_| broken())
    }
}

impl Connection for Session {
    type Watch = Watching;
    type Lease = Held;

    async fn page(&mut self, page: &PageRequest) -> Result<Page, EtcdError> {
        let page = page.clone();
        self.call(move |etcd| etcd.page(&page)).await
    }

    async fn watch(&mut self, range: &Range, from: i64) -> Result<Watching, EtcdError> {
        let (near, told) = mpsc::unbounded_channel();
        let (to, mut far) = mpsc::unbounded_channel::<Heard>();
        let range = range.clone();
        let id = self.call(move |etcd| etcd.watch(&range, from, to)).await?;
        let Self { wire, epoch } = self.clone();
        tokio::spawn(async move {
            // Closed by a server that ended.
            while let Some(message) = far.recv().await {
                if wire.travel(epoch).await.is_err() || near.send(message).is_err() {
                    return;
                }
            }
            let _ = wire.travel(epoch).await;
        });
        Ok(Watching { connection: self.clone(), id, told })
    }

    async fn grant(&mut self, ttl: Duration) -> Result<Held, EtcdError> {
        let id = self.call(move |etcd| etcd.grant(ttl)).await?;
        Ok(Held { connection: self.clone(), id })
    }

    async fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), EtcdError> {
        let key = key.to_owned();
        let written = self.call(move |etcd| etcd.put(&key, value, lease)).await?;
        written.then_some(()).ok_or_else(|| EtcdError::Ended("requested lease not found".to_owned()))
    }

    async fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, i64)>, EtcdError> {
        let key = key.to_owned();
        self.call(move |etcd| etcd.get(&key)).await
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), EtcdError> {
        self.call(move |etcd| etcd.revoke(lease)).await
    }
}

/// A watch over a [`Wire`].
#[derive(Debug)]
pub struct Watching {
    connection: Session,
    id: u64,
    told: mpsc::UnboundedReceiver<Heard>,
}

impl Watch for Watching {
    async fn message(&mut self) -> Result<Message, EtcdError> {
        let Session { wire, epoch } = &self.connection;
        let (mut epochs, mut life) = (wire.epoch.subscribe(), wire.life.subscribe());
        loop {
            wire.awake().await;
            tokio::select! {
                biased;
                _ = life.wait_for(|life| *life != Life::Running) => {}
                _ = epochs.wait_for(|now| now != epoch) => return Err(broken()),
                message = self.told.recv() => {
                    return message.map_or_else(|| Err(broken()), |told| told.map_err(EtcdError::Ended));
                }
            }
        }
    }

    async fn request_progress(&mut self) -> Result<(), EtcdError> {
        let id = self.id;
        // Nobody waits for an answer: it comes, if at all, as a message.
        let connection = self.connection.clone();
        tokio::spawn(async move { connection.call(move |etcd| etcd.progress(id)).await });
        Ok(())
    }
}

/// A lease over a [`Wire`].
#[derive(Debug)]
pub struct Held {
    connection: Session,
    id: i64,
}

impl Lease for Held {
    fn id(&self) -> i64 {
        self.id
    }

    async fn renew(&mut self) -> Result<bool, EtcdError> {
        let id = self.id;
        self.connection.call(move |etcd| etcd.renew(id)).await
    }
}

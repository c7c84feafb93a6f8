//! Plays a schedule in memory: the library's feed and report and the operator's reports and verdicts, as they
//! are, over an [`Etcd`] of our own, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fusebox::Fusebox;
use fusebox_operator::model::Endpoint;
use fusebox_policy::keys::Ident;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::etcd::Etcd;
use crate::operator::{Cluster, Operator, Told};
use crate::oracle::{Oracle, Truth};
use crate::policies::{CLUSTER, Ran, document, ident, in_force, keys};
use crate::schedule::{Action, Data, Fault, Foreign, Schedule, TROUBLE};
use crate::wire::{Life, Line, Wire};

/// How often the world is looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long it may take until all is well again: ten times what is seen.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long nothing may be written then.
const REST: Duration = Duration::from_secs(20);
/// How things travel when all is well.
const QUICK: Line = Line::Whole(Duration::from_millis(2));

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The longest that Enforced was True beside an instance that ran another policy.
    pub worst: Duration,
    /// From the end of all trouble to Enforced=True.
    pub healed: Duration,
}

struct Process {
    fusebox: Fusebox,
    wire: Wire,
    ran: Ran,
    started: Instant,
    frozen_at: Option<Instant>,
}

struct Pod {
    id: u64,
    wire: Wire,
    process: Option<Process>,
    /// What Kubernetes holds of it.
    ready: bool,
    died_at: Option<Instant>,
}

/// What an action leaves to be done.
enum Later {
    Start(u64),
    Thaw(u64),
    Heal(Wire),
    RunEtcd,
    Endpoints(Cluster),
}

struct World {
    schedule: Schedule,
    of: Ident,
    random: fastrand::Rng,
    start: Instant,
    etcd: Etcd,
    pods: Vec<Pod>,
    next_pod: u64,
    operator: Option<Operator>,
    operator_wire: Wire,
    cluster: watch::Sender<Cluster>,
    told: Arc<watch::Sender<Told>>,
    wanted: (u64, u64),
    later: BTreeMap<(Instant, u64), Later>,
    order: u64,
}

/// Plays it. Err tells what went wrong and what happened before.
pub async fn play(schedule: Schedule) -> Result<Outcome, String> {
    let seed = schedule.seed;
    let mut world = World::new(schedule);
    let result = world.run().await;
    result.map_err(|error| format!("seed {seed}: {error}\n{:#?}", world.schedule))
}

impl World {
    fn new(schedule: Schedule) -> Self {
        let etcd = Etcd::start();
        let mut random = fastrand::Rng::with_seed(schedule.seed ^ 0x5eed);
        let operator_wire = Wire::to(&etcd, Duration::from_millis(2), random.u64(..));
        let mut world = Self {
            of: ident(0),
            start: Instant::now(),
            pods: Vec::new(),
            next_pod: 0,
            operator: None,
            operator_wire,
            cluster: watch::Sender::new(Cluster { wanted: (1, 1), endpoints: Vec::new() }),
            told: Arc::default(),
            wanted: (1, 1),
            later: BTreeMap::new(),
            order: 0,
            etcd,
            random,
            schedule,
        };
        for _ in 0..world.schedule.pods {
            let pod = world.new_pod();
            world.pods.push(pod);
        }
        world.start_operator();
        world
    }

    async fn run(&mut self) -> Result<Outcome, String> {
        let mut oracle = Oracle::default();
        let mut actions = self.schedule.actions.clone().into_iter().peekable();
        while self.now() < TROUBLE {
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= self.now()) {
                self.act(action);
            }
            self.step(&mut oracle).await?;
        }
        self.heal();
        let healing = self.now();
        loop {
            self.step(&mut oracle).await?;
            let told = self.told.borrow().clone();
            if told.enforced && told.generation == self.wanted.1 && self.all_run()? {
                break;
            }
            if self.now() > healing + PATIENCE {
                return Err(format!("never Enforced again: {told:?}, wanted {:?}", self.wanted));
            }
        }
        let healed = self.now().saturating_sub(healing);
        // What only the resync of 30 s finds: a policy that somebody deleted and that is in force everywhere.
        for _ in 0..350 {
            self.step(&mut oracle).await?;
        }
        let puts = self.etcd.puts();
        let until = self.now() + REST;
        while self.now() < until {
            self.step(&mut oracle).await?;
            let told = self.told.borrow().clone();
            if !told.enforced {
                return Err(format!("at rest Enforced is not True any more: {told:?}"));
            }
        }
        if self.etcd.puts() != puts {
            let newest = self.etcd.newest(6);
            return Err(format!(
                "{} writes at rest, at {:?}: {newest:#?}",
                self.etcd.puts() - puts,
                self.now()
            ));
        }
        Ok(Outcome { worst: oracle.worst, healed })
    }

    fn now(&self) -> Duration {
        Instant::now().duration_since(self.start)
    }

    /// Lets time pass, does what is due, and looks.
    async fn step(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        sleep(STEP).await;
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= Instant::now()
        {
            let later = entry.remove();
            self.catch_up(later);
        }
        self.probe();
        let told = self.told.borrow().clone();
        let enforced = (told.enforced && told.generation == self.wanted.1).then_some(self.wanted.0);
        let truths = self.pods.iter().map(|pod| {
            let mut runs = Vec::new();
            if let Some(process) = &pod.process {
                runs = process.ran.take();
                runs.extend(in_force(&process.fusebox)?);
            }
            Ok(Truth { pod: pod.id, ready: pod.ready, runs })
        });
        let truths: Vec<Truth> = truths.collect::<Result<_, String>>()?;
        oracle.see(self.now(), enforced, &truths)
    }

    fn all_run(&self) -> Result<bool, String> {
        for pod in &self.pods {
            let runs = pod.process.as_ref().map_or(Ok(None), |process| in_force(&process.fusebox))?;
            if !pod.ready || runs != Some(self.wanted.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn after(&mut self, wait: Duration, later: Later) {
        self.order += 1;
        self.later.insert((Instant::now() + wait, self.order), later);
    }

    fn within(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(0..=most))
    }

    fn new_pod(&mut self) -> Pod {
        self.next_pod += 1;
        let wire = Wire::to(&self.etcd, Duration::from_millis(2), self.random.u64(..));
        let mut pod = Pod { id: self.next_pod, wire, process: None, ready: false, died_at: None };
        self.start_process(&mut pod);
        pod
    }

    fn start_process(&self, pod: &mut Pod) {
        let wire = pod.wire.for_another_process();
        let uid = format!("uid-{}", pod.id);
        let of = self.of.to_string();
        let get = |variable: &str| match variable {
            "FUSEBOX_SERVICE" => Some(of.clone()),
            "FUSEBOX_CLUSTER" => Some(CLUSTER.to_owned()),
            "FUSEBOX_ETCD" => Some("http://in-memory:2379".to_owned()),
            "POD_UID" => Some(uid.clone()),
            _ => None,
        };
        // The variables are whole.
        let Ok(fusebox) = Fusebox::linked(get, wire.clone()) else { return };
        pod.process = Some(Process {
            ran: Ran::record(&fusebox),
            fusebox,
            wire,
            started: Instant::now(),
            frozen_at: None,
        });
    }

    fn start_operator(&mut self) {
        if let Some(old) = self.operator.take() {
            old.kill();
        }
        let wire = self.operator_wire.for_another_process();
        let cluster = self.cluster.subscribe();
        self.operator = Some(Operator::start(&self.of, wire, cluster, Arc::clone(&self.told)));
    }

    fn pod(&mut self, id: u64) -> Option<&mut Pod> {
        self.pods.iter_mut().find(|pod| pod.id == id)
    }

    fn catch_up(&mut self, later: Later) {
        match later {
            Later::Start(id) => {
                let Some(at) = self.pods.iter().position(|pod| pod.id == id) else { return };
                let mut pod = self.pods.remove(at);
                // Kubernetes has seen the end of the process before it starts another.
                pod.ready = false;
                pod.died_at = None;
                self.start_process(&mut pod);
                self.pods.insert(at, pod);
                self.publish_endpoints();
            }
            Later::Thaw(id) => {
                let process = self.pod(id).and_then(|pod| pod.process.as_mut());
                if let Some(process) = process {
                    process.frozen_at = None;
                    process.wire.live(Life::Running);
                }
            }
            Later::Heal(wire) => wire.set(QUICK),
            Later::RunEtcd => self.etcd.run(),
            Later::Endpoints(cluster) => {
                self.cluster.send_if_modified(|now| {
                    // The spec comes by a watch of its own.
                    let changed = now.endpoints != cluster.endpoints;
                    now.endpoints = cluster.endpoints;
                    changed
                });
            }
        }
    }

    /// What the kubelet finds out.
    fn probe(&mut self) {
        let now = Instant::now();
        let (wait, slow) = (self.schedule.policy_wait, self.schedule.probe);
        let mut changed = false;
        for pod in &mut self.pods {
            let ready = match &pod.process {
                None => pod.ready && pod.died_at.is_some_and(|died| now - died < Duration::from_secs(1)),
                Some(process) => match process.frozen_at {
                    Some(frozen) => pod.ready && now - frozen < slow,
                    None => {
                        pod.ready || process.fusebox.policy_hash().is_some() || now - process.started >= wait
                    }
                },
            };
            changed |= std::mem::replace(&mut pod.ready, ready) != ready;
        }
        if changed {
            self.publish_endpoints();
        }
    }

    /// Kubernetes tells the operator, a little later.
    fn publish_endpoints(&mut self) {
        let endpoint = |pod: &Pod| Endpoint {
            instance: format!("uid-{}", pod.id),
            display: format!("user-{}", pod.id),
            address: String::new(),
            ports: BTreeMap::new(),
            ready: pod.ready,
        };
        let endpoints = self.pods.iter().map(endpoint).collect();
        let lag = self.within(50);
        self.after(lag, Later::Endpoints(Cluster { wanted: self.wanted, endpoints }));
    }

    fn kill(pod: &mut Pod) {
        if let Some(process) = pod.process.take() {
            process.wire.live(Life::Dead);
            pod.died_at = Some(Instant::now());
        }
    }

    fn act(&mut self, action: Action) {
        let id = |world: &Self, pod: usize| world.pods.get(pod).map_or(0, |pod| pod.id);
        match action {
            Action::Edit(number) => {
                self.wanted = (number, self.wanted.1 + 1);
                self.cluster.send_modify(|cluster| cluster.wanted = self.wanted);
            }
            Action::Foreign(foreign) => {
                let key = keys().policy(&self.of);
                match foreign {
                    Foreign::Garbage => drop(self.etcd.put(&key, b"{\"schema\":1,".to_vec(), 0)),
                    Foreign::Another(number) => {
                        self.etcd.put(&key, document(number).to_json().into_bytes(), 0);
                    }
                    Foreign::Deleted => self.etcd.delete(&key),
                }
            }
            Action::Kill { pod, back_after } => {
                let id = id(self, pod);
                if let Some(pod) = self.pod(id).filter(|pod| pod.process.is_some()) {
                    Self::kill(pod);
                    self.after(back_after, Later::Start(id));
                }
            }
            Action::Replace { pod } => {
                let new = self.new_pod();
                let old = std::mem::replace(&mut self.pods[pod], new);
                if let Some(process) = old.process {
                    tokio::spawn(async move {
                        process.fusebox.shutdown().await;
                        process.wire.live(Life::Dead);
                    });
                }
                self.publish_endpoints();
            }
            Action::Freeze { pod, lasts } => {
                let id = id(self, pod);
                if let Some(process) = self.pod(id).and_then(|pod| pod.process.as_mut()) {
                    process.wire.live(Life::Frozen);
                    process.frozen_at.get_or_insert(Instant::now());
                    self.after(lasts, Later::Thaw(id));
                }
            }
            Action::Wire { pod, fault, lasts } => {
                let wire = pod.map_or(&self.operator_wire, |pod| &self.pods[pod].wire).clone();
                match fault {
                    Fault::Cut => wire.set(Line::Cut),
                    Fault::Silent => wire.set(Line::Silent),
                    Fault::Slow(by) => wire.set(Line::Whole(by)),
                    Fault::Blip => wire.break_all(),
                }
                self.after(lasts, Later::Heal(wire));
            }
            Action::Etcd { data, lasts } => {
                self.etcd.stop();
                self.break_all();
                match data {
                    Data::Kept => {}
                    Data::Wiped => self.etcd.wipe(),
                    Data::Restored => self.etcd.restore(),
                }
                self.etcd.stop();
                self.after(lasts, Later::RunEtcd);
            }
            Action::Compact => self.etcd.compact(),
            Action::BackUp => self.etcd.back_up(),
            Action::EndLease { pod } => {
                let key = keys().report(&self.of, &format!("uid-{}", id(self, pod)));
                self.etcd.expire(&key);
            }
            Action::DeleteReport { pod } => {
                let key = keys().report(&self.of, &format!("uid-{}", id(self, pod)));
                self.etcd.delete(&key);
            }
            Action::RestartOperator => self.start_operator(),
        }
    }

    fn break_all(&self) {
        self.operator_wire.break_all();
        self.pods.iter().for_each(|pod| pod.wire.break_all());
    }

    /// Ends all trouble; what dies starts again.
    fn heal(&mut self) {
        self.etcd.run();
        self.operator_wire.set(QUICK);
        for pod in &mut self.pods {
            pod.wire.set(QUICK);
            if let Some(process) = &mut pod.process {
                process.frozen_at = None;
                process.wire.live(Life::Running);
            }
        }
        let due = std::mem::take(&mut self.later);
        for later in due.into_values() {
            self.catch_up(later);
        }
    }
}

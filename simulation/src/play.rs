//! Plays a schedule on a stage, is its kubelet, and lets the oracle watch.

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox_operator::model::Endpoint;
use fusebox_policy::keys::Ident;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::operator::{Cluster, Operator, Told};
use crate::oracle::{Oracle, Truth};
use crate::policies::document;
use crate::schedule::{Action, Fault, Foreign, Schedule, TROUBLE};
use crate::stage::{Process, Stage};
use crate::wire::Line;

/// How often the world is looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long it may take until all is well again: ten times what is seen.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long nothing may be written then.
const REST: Duration = Duration::from_secs(20);
/// How long a report lives without renewal.
const LEASE: Duration = Duration::from_secs(10);
/// How things travel when all is well.
const QUICK: Line = Line::Whole(Duration::ZERO);

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The longest that Enforced was True beside an instance that ran another policy.
    pub worst: Duration,
    /// From the end of all trouble to Enforced=True.
    pub healed: Duration,
}

struct Pod<S: Stage> {
    id: u64,
    wire: S::Wire,
    process: Option<Started<S::Process>>,
    /// What Kubernetes holds of it.
    ready: bool,
    died_at: Option<Instant>,
}

struct Started<P> {
    process: P,
    at: Instant,
    frozen_at: Option<Instant>,
}

/// What an action leaves to be done.
enum Later<S: Stage> {
    Start(u64),
    Thaw(u64),
    Heal(S::Wire),
    RunEtcd,
    Endpoints,
}

struct World<S: Stage> {
    stage: S,
    schedule: Schedule,
    of: Ident,
    random: fastrand::Rng,
    start: Instant,
    pods: Vec<Pod<S>>,
    next_pod: u64,
    operator: Option<Operator>,
    operator_wire: S::Wire,
    cluster: watch::Sender<Cluster>,
    told: watch::Sender<Told>,
    wanted: (u64, u64),
    later: BTreeMap<(Instant, u64), Later<S>>,
    order: u64,
    /// When etcd last ended, and when it last started after that.
    etcd_ended: Option<Instant>,
    etcd_started: Option<Instant>,
    /// When this operator first had reports.
    first_reports: Option<Instant>,
}

/// Plays it. Err tells what went wrong, and the schedule.
pub async fn play<S: Stage>(stage: S, schedule: Schedule) -> Result<Outcome, String> {
    let told = schedule.clone();
    let played = async { World::new(stage, schedule)?.run().await }.await;
    played.map_err(|error| format!("{error}\n{told:#?}"))
}

impl<S: Stage> World<S> {
    fn new(mut stage: S, schedule: Schedule) -> Result<Self, String> {
        let mut world = Self {
            of: Ident::new("shop", "user"),
            random: fastrand::Rng::with_seed(schedule.seed ^ 0x5eed),
            start: Instant::now(),
            pods: Vec::new(),
            next_pod: 0,
            operator: None,
            operator_wire: stage.wire(),
            cluster: watch::Sender::new(Cluster { wanted: (1, 1), endpoints: Vec::new() }),
            told: watch::Sender::default(),
            wanted: (1, 1),
            later: BTreeMap::new(),
            order: 0,
            etcd_ended: None,
            etcd_started: None,
            first_reports: None,
            stage,
            schedule,
        };
        for _ in 0..world.schedule.pods {
            let pod = world.new_pod()?;
            world.pods.push(pod);
        }
        world.start_operator();
        Ok(world)
    }

    async fn run(&mut self) -> Result<Outcome, String> {
        let mut oracle = Oracle::default();
        let mut actions = self.schedule.actions.clone().into_iter().peekable();
        while self.now() < TROUBLE {
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= self.now()) {
                self.act(action)?;
            }
            self.step(&mut oracle).await?;
        }
        self.heal()?;
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
        let Some(_) = self.stage.writes() else { return Ok(Outcome { worst: oracle.worst, healed }) };
        // What only the resync of 30 s finds: a policy that somebody deleted and that is in force everywhere.
        for _ in 0..350 {
            self.step(&mut oracle).await?;
        }
        let before = self.stage.writes();
        let until = self.now() + REST;
        while self.now() < until {
            self.step(&mut oracle).await?;
            let told = self.told.borrow().clone();
            if !told.enforced {
                return Err(format!("at rest Enforced is not True any more: {told:?}"));
            }
        }
        let after = self.stage.writes();
        if after != before {
            return Err(format!("written at rest, at {:?}: {after:#?}", self.now()));
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
            self.catch_up(later)?;
        }
        self.probe();
        let told = self.told.borrow().clone();
        // Also of an earlier generation: it is what a person sees.
        let enforced = told.enforced.then_some(told.number);
        let mut truths = Vec::with_capacity(self.pods.len());
        for pod in &mut self.pods {
            let runs = pod.process.as_mut().map_or(Ok(Vec::new()), |started| started.process.ran())?;
            truths.push(Truth { pod: pod.id, ready: pod.ready, runs });
        }
        if self.first_reports.is_none() && self.operator.as_ref().is_some_and(Operator::has_reports) {
            self.first_reports = Some(Instant::now());
        }
        oracle.see(self.now(), enforced.filter(|_| self.can_know()), &truths)
    }

    /// The one caveat of the promise: who reads the first reports after etcd started cannot know of the start, which
    /// gave the leases behind them their whole time once more.
    fn can_know(&self) -> bool {
        let is_new =
            self.first_reports.is_none_or(|first| self.etcd_ended.is_some_and(|ended| first >= ended));
        let is_over = self.etcd_started.is_none_or(|at| Instant::now() > at + LEASE + LEASE / 10);
        is_over || !is_new
    }

    fn all_run(&mut self) -> Result<bool, String> {
        for pod in &mut self.pods {
            let runs = pod.process.as_mut().map_or(Ok(Vec::new()), |started| started.process.ran())?;
            if !pod.ready || runs.last() != Some(&self.wanted.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn after(&mut self, wait: Duration, later: Later<S>) {
        self.order += 1;
        self.later.insert((Instant::now() + wait, self.order), later);
    }

    fn within(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(0..=most))
    }

    fn new_pod(&mut self) -> Result<Pod<S>, String> {
        self.next_pod += 1;
        let wire = self.stage.wire();
        let mut pod = Pod { id: self.next_pod, wire, process: None, ready: false, died_at: None };
        self.start_process(&mut pod)?;
        Ok(pod)
    }

    fn start_process(&mut self, pod: &mut Pod<S>) -> Result<(), String> {
        let process = self.stage.start(&self.of, &uid(pod.id), &pod.wire)?;
        pod.process = Some(Started { process, at: Instant::now(), frozen_at: None });
        Ok(())
    }

    fn start_operator(&mut self) {
        if let Some(old) = self.operator.take() {
            old.kill();
        }
        self.first_reports = None;
        let (cluster, told) = (self.cluster.subscribe(), self.told.clone());
        self.operator = Some(self.stage.operator(&self.of, &self.operator_wire, cluster, told));
    }

    fn pod(&mut self, id: u64) -> Option<&mut Pod<S>> {
        self.pods.iter_mut().find(|pod| pod.id == id)
    }

    fn catch_up(&mut self, later: Later<S>) -> Result<(), String> {
        match later {
            Later::Start(id) => {
                let Some(at) = self.pods.iter().position(|pod| pod.id == id) else { return Ok(()) };
                let mut pod = self.pods.remove(at);
                // Kubernetes has seen the end of the process before it starts another.
                pod.ready = false;
                pod.died_at = None;
                self.start_process(&mut pod)?;
                self.pods.insert(at, pod);
                self.publish_endpoints();
            }
            Later::Thaw(id) => {
                if let Some(started) = self.pod(id).and_then(|pod| pod.process.as_mut()) {
                    started.frozen_at = None;
                    started.process.freeze(false);
                }
            }
            Later::Heal(wire) => self.stage.set(&wire, QUICK),
            Later::RunEtcd => self.run_etcd(),
            Later::Endpoints => {
                let endpoints = self.endpoints();
                self.cluster.send_modify(|cluster| cluster.endpoints = endpoints);
            }
        }
        Ok(())
    }

    /// What the kubelet finds out.
    fn probe(&mut self) {
        let now = Instant::now();
        let (wait, slow) = (self.schedule.policy_wait, self.schedule.probe);
        let mut changed = false;
        for pod in &mut self.pods {
            let ready = match &pod.process {
                None => pod.ready && pod.died_at.is_some_and(|died| now - died < Duration::from_secs(1)),
                Some(Started { frozen_at: Some(frozen), .. }) => pod.ready && now - *frozen < slow,
                Some(started) => pod.ready || started.process.has_policy() || now - started.at >= wait,
            };
            changed |= std::mem::replace(&mut pod.ready, ready) != ready;
        }
        if changed {
            self.publish_endpoints();
        }
    }

    fn run_etcd(&mut self) {
        self.stage.run_etcd();
        self.etcd_started = Some(Instant::now());
    }

    /// Kubernetes tells the operator, a little later: how it is by then.
    fn publish_endpoints(&mut self) {
        let lag = self.within(50);
        self.after(lag, Later::Endpoints);
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |pod: &Pod<S>| Endpoint {
            instance: uid(pod.id),
            display: format!("user-{}", pod.id),
            address: String::new(),
            ports: BTreeMap::new(),
            ready: pod.ready,
        };
        self.pods.iter().map(endpoint).collect()
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        let id = |world: &Self, pod: usize| world.pods.get(pod).map_or(0, |pod| pod.id);
        let report = |world: &Self, pod| world.stage.keys().report(&world.of, &uid(id(world, pod)));
        match action {
            Action::Edit(number) => {
                self.wanted = (number, self.wanted.1 + 1);
                self.cluster.send_modify(|cluster| cluster.wanted = self.wanted);
            }
            Action::Foreign(foreign) => {
                let value = match foreign {
                    Foreign::Garbage => Some("{\"schema\":1,".to_owned()),
                    Foreign::Another(number) => Some(document(number).to_json()),
                    Foreign::Deleted => None,
                };
                self.stage.write(&self.stage.keys().policy(&self.of), value);
            }
            Action::Kill { pod, back_after } => {
                let id = id(self, pod);
                let Some(pod) = self.pod(id) else { return Ok(()) };
                if let Some(started) = pod.process.take() {
                    started.process.kill();
                    pod.died_at = Some(Instant::now());
                    self.after(back_after, Later::Start(id));
                }
            }
            Action::Replace { pod } => {
                let new = self.new_pod()?;
                let old = std::mem::replace(&mut self.pods[pod], new);
                if let Some(started) = old.process {
                    started.process.end();
                }
                self.publish_endpoints();
            }
            Action::Freeze { pod, lasts } => {
                let id = id(self, pod);
                if let Some(started) = self.pod(id).and_then(|pod| pod.process.as_mut()) {
                    started.process.freeze(true);
                    started.frozen_at.get_or_insert(Instant::now());
                    self.after(lasts, Later::Thaw(id));
                }
            }
            Action::Wire { pod, fault, lasts } => {
                let wire = pod.map_or(&self.operator_wire, |pod| &self.pods[pod].wire).clone();
                match fault {
                    Fault::Cut => self.stage.set(&wire, Line::Cut),
                    Fault::Silent => self.stage.set(&wire, Line::Silent),
                    Fault::Slow(by) => self.stage.set(&wire, Line::Whole(by)),
                    Fault::Blip => self.stage.blip(&wire),
                }
                self.after(lasts, Later::Heal(wire));
            }
            Action::Etcd { data, lasts } => {
                self.stage.stop_etcd(data);
                self.etcd_ended = Some(Instant::now());
                self.after(lasts, Later::RunEtcd);
            }
            Action::Compact => self.stage.compact(),
            Action::BackUp => self.stage.back_up(),
            // As far as anybody can see, the same as a start.
            Action::Elect => {
                self.etcd_ended = Some(Instant::now());
                self.run_etcd();
            }
            Action::EndLease { pod } => self.stage.end_lease(&report(self, pod)),
            Action::DeleteReport { pod } => self.stage.write(&report(self, pod), None),
            Action::RestartOperator => self.start_operator(),
        }
        Ok(())
    }

    /// Ends all trouble; what dies starts again.
    fn heal(&mut self) -> Result<(), String> {
        self.run_etcd();
        self.stage.set(&self.operator_wire, QUICK);
        for pod in &mut self.pods {
            self.stage.set(&pod.wire, QUICK);
            if let Some(started) = &mut pod.process {
                started.frozen_at = None;
                started.process.freeze(false);
            }
        }
        let due = std::mem::take(&mut self.later);
        due.into_values().try_for_each(|later| self.catch_up(later))
    }
}

fn uid(pod: u64) -> String {
    format!("uid-{pod}")
}

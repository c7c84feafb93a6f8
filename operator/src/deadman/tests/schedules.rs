//! Random schedules in virtual time: processes are killed, started, cut off, slow and deaf, lead alone, together or
//! not at all; sessions are ended, checks written over, Consul wiped. `FUSEBOX_SEED=n` plays one of them again.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::process::Process;
use crate::deadman::decide::beat;
use crate::world::SessionWorld;

const TTL: Duration = Duration::from_mins(1);
const NODES: [&str; 3] = ["fusebox-demo-0", "fusebox-demo-7", "fusebox-demo-15"];
const PROCESSES: usize = 3;
const STEPS: usize = 60;
/// Longer than a round of the slowest process and the wait for it.
const ROUND: Duration = Duration::from_secs(20);
/// A whole round so long before a check turns critical must have kept it: the TTL, but for what a session that it
/// was put under meanwhile may be old.
const KEPT: Duration = Duration::from_secs(50);

/// A process, or its place, and when it could talk to Consul.
#[derive(Default)]
struct Slot {
    process: Option<Process>,
    whole_since: Option<Instant>,
    whole: Vec<(Instant, Instant)>,
}

impl Slot {
    fn note(&mut self) {
        let whole = self
            .process
            .as_ref()
            .is_some_and(|process| !process.wire.cut.load(SeqCst) && !process.wire.deaf.load(SeqCst));
        match (whole, self.whole_since) {
            (true, None) => self.whole_since = Some(Instant::now()),
            (false, Some(since)) => {
                self.whole.push((since, Instant::now()));
                self.whole_since = None;
            }
            _ => {}
        }
    }

    /// Did it make a whole round in this time?
    fn made_a_round(&self, from: Instant, to: Instant) -> bool {
        let now = self.whole_since.map(|since| (since, Instant::now()));
        let long_enough = |(since, until): &(Instant, Instant)| {
            (*until).min(to).saturating_duration_since((*since).max(from)) >= ROUND
        };
        self.whole.iter().chain(&now).any(long_enough)
    }
}

#[derive(Debug, Default)]
struct Counted {
    turned: usize,
    rotations: u64,
    most_sessions: usize,
}

struct Schedule {
    rng: Rng,
    world: Arc<SessionWorld>,
    slots: Vec<Slot>,
    /// A session that the schedule ended itself.
    harmed: Vec<(String, Instant)>,
    judged: usize,
    counted: Counted,
}

impl Schedule {
    fn step(&mut self) {
        let node = NODES[self.rng.usize(..NODES.len())];
        let slot = self.rng.usize(..PROCESSES);
        match self.rng.u32(..100) {
            0..15 => self.stop(slot),
            15..35 if self.slots[slot].process.is_none() => {
                self.slots[slot].process = Some(Process::start(&self.world, self.rng.bool(), TTL));
            }
            87..90 => self.world.break_check(node),
            90..93 => {
                self.world.destroy_session_of(node);
                self.harmed.push((node.to_owned(), Instant::now()));
            }
            93..95 => self.world.restart_timers(),
            95..96 => self.world.wipe(),
            96..98 => {
                self.world.reap_node(node);
                self.world.add_node(node);
            }
            98 => self.world.disarm(node),
            99 => self.world.spoil(node),
            what => self.on_the_wire(slot, what),
        }
        self.slots.iter_mut().for_each(Slot::note);
    }

    fn on_the_wire(&mut self, slot: usize, what: u32) {
        let Some(process) = &self.slots[slot].process else { return };
        let toggle = |flag: &std::sync::atomic::AtomicBool| flag.fetch_xor(true, SeqCst);
        match what {
            15..50 => drop(process.leads.send_replace(self.rng.bool())),
            50..62 => drop(toggle(&process.wire.cut)),
            62..72 => drop(toggle(&process.wire.deaf)),
            72..76 => drop(toggle(&process.wire.refused)),
            _ => process.wire.slow.store(self.rng.u64(..500), SeqCst),
        }
    }

    fn stop(&mut self, slot: usize) {
        if let Some(process) = self.slots[slot].process.take() {
            self.counted.rotations += process.metrics.rotations.get();
        }
    }

    /// No check turned critical that somebody had renewed.
    fn judge(&mut self) {
        let turned = self.world.turned();
        for turned in &turned[self.judged..] {
            if self.harmed.contains(&(turned.node.clone(), turned.at)) {
                continue;
            }
            self.counted.turned += 1;
            let from = turned.at - KEPT;
            let keeper = self.slots.iter().position(|slot| slot.made_a_round(from, turned.at));
            assert_eq!(keeper, None, "a false critical: {turned:?}, which this process looked after");
        }
        self.judged = turned.len();
        self.counted.most_sessions = self.counted.most_sessions.max(self.world.sessions().len());
    }

    fn fine(&self) -> usize {
        let sessions = self.world.sessions();
        let waits = |node: &crate::deadman::port::Node| {
            let check = node.check.as_ref().filter(|check| check.passing)?;
            sessions.get(&check.session.as_ref()?.id)
        };
        self.world.nodes().iter().filter(|node| waits(node).is_some()).count()
    }

    async fn ends_well(&mut self) {
        for slot in 0..PROCESSES {
            self.stop(slot);
            self.slots[slot].note();
            self.slots[slot].process = Some(Process::start(&self.world, slot == 0, TTL));
            self.slots[slot].note();
        }
        sleep(beat(TTL) * 2).await;
        assert_eq!(self.fine(), NODES.len(), "all is well: {:?}", self.world.nodes());
        sleep(TTL * 2).await;
        let writes = self.world.writes();
        assert_eq!(self.world.sessions().len(), NODES.len(), "sessions leaked");
        sleep(TTL * 5).await;
        assert_eq!((self.world.writes(), self.fine()), (writes, NODES.len()), "it is not silent");
        self.judge();

        let before = self.world.turned().len();
        for slot in 0..PROCESSES {
            self.stop(slot);
            self.slots[slot].note();
        }
        let gone = Instant::now();
        sleep(TTL * 2).await;
        let turned = &self.world.turned()[before..];
        assert_eq!(turned.len(), NODES.len(), "when all are gone every check turns critical");
        assert!(turned.iter().all(|turned| turned.at - gone + beat(TTL) >= TTL), "too early: {turned:?}");
        self.slots[0].process = Some(Process::start(&self.world, true, TTL));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(self.fine(), NODES.len(), "the first one back heals all");
    }
}

async fn play(seed: u64) -> Counted {
    fastrand::seed(seed);
    let mut schedule = Schedule {
        rng: Rng::with_seed(seed),
        world: Arc::new(SessionWorld::new(true)),
        slots: (0..PROCESSES).map(|_| Slot::default()).collect(),
        harmed: Vec::new(),
        judged: 0,
        counted: Counted::default(),
    };
    for node in NODES {
        schedule.world.add_node(node);
    }
    for _ in 0..STEPS {
        schedule.step();
        sleep(Duration::from_millis(schedule.rng.u64(..16_000))).await;
        schedule.judge();
    }
    schedule.ends_well().await;
    schedule.counted
}

/// 300, or 30,000 with `FUSEBOX_LONG=1`.
#[test]
fn nobody_who_is_looked_after_turns_critical_and_nothing_leaks() {
    let seeds = fusebox_processes::seeds(0..300, 0..30_000);
    let many = seeds.end - seeds.start > 1;
    let mut all = Counted::default();
    for seed in seeds.clone() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let guard = Seed(seed);
        let counted = runtime.block_on(play(seed));
        drop(guard);
        all.turned += counted.turned;
        all.rotations += counted.rotations;
        all.most_sessions = all.most_sessions.max(counted.most_sessions);
    }
    println!("schedules {seeds:?}: {all:?}");
    assert!(!many || (all.turned > 100 && all.rotations > 1000), "the schedules try nothing: {all:?}");
}

/// Names the schedule that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("FUSEBOX_SEED={} plays it again", self.0);
        }
    }
}

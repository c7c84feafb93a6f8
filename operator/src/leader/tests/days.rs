//! Bad days in virtual time, by seed: three replicas that crash, freeze, conflict and are cut off, with clocks
//! that go at different rates. `FUSEBOX_SEED=n` plays one of them.

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::wire::Epoch;
use tokio::time::{Instant, sleep};

use super::super::{LEASE_DURATION, RETRY_PERIOD};
use super::town::{Count, Process, Town};
use crate::world::Weather;

const REPLICAS: usize = 3;
/// How long a day is bad.
const BAD: Duration = Duration::from_secs(90);
/// How long it is good then: the slowest clock sees a lease end, whatever was in flight.
const GOOD: Duration = Duration::from_secs(45);
/// How often one looks who believes to lead.
const LOOK: Duration = Duration::from_millis(25);
const DAYS: u64 = 1500;

/// What may happen beside crashes, freezes and bad weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Clocks differ less than a lease and its renewal deadline do, and nobody touches the Lease.
    Promised,
    /// Any clock, Leases deleted, stores wiped and restored: only the fence is left.
    Wild,
}

/// The replicas, and what starts them again.
struct Street {
    town: Arc<Town>,
    rates: Vec<f64>,
    processes: Vec<Process>,
    starts: u32,
    /// When an ended replica is started again.
    due: Vec<Option<Instant>>,
}

impl Street {
    fn new(kind: Kind) -> Self {
        let town = Town::new(6);
        let rate = || match kind {
            // 1.5 is the most that may lie between two of them.
            Kind::Promised => 0.82 + 0.4 * fastrand::f64(),
            Kind::Wild => 0.4 + 1.6 * fastrand::f64(),
        };
        let rates: Vec<f64> = (0..REPLICAS).map(|_| rate()).collect();
        let first = |(n, rate): (usize, &f64)| Process::start(&town, &format!("{n}/0"), *rate);
        let processes = rates.iter().enumerate().map(first).collect();
        Self { town, rates, processes, starts: 0, due: vec![None; REPLICAS] }
    }

    /// Looks who believes to lead, and starts again who ended.
    fn look(&mut self) {
        let believe = self.processes.iter().filter(|process| process.believes()).count();
        self.town.count.try_lock().unwrap().two_leaders += u64::from(believe > 1);
        for n in 0..REPLICAS {
            if !self.processes[n].running.is_finished() {
                continue;
            }
            let wait = Duration::from_millis(fastrand::u64(50..4000));
            if Instant::now() >= *self.due[n].get_or_insert_with(|| Instant::now() + wait) {
                self.due[n] = None;
                self.starts += 1;
                let me = format!("{n}/{}", self.starts);
                self.processes[n] = Process::start(&self.town, &me, self.rates[n]);
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look();
            sleep(LOOK).await;
        }
    }

    /// Something happens, mostly to who leads.
    fn trouble(&self, kind: Kind) {
        let leader = self.processes.iter().position(Process::believes);
        let n = leader.filter(|_| fastrand::u8(0..4) > 0).unwrap_or_else(|| fastrand::usize(0..REPLICAS));
        let process = &self.processes[n];
        let seconds = |most: f64| Duration::from_secs_f64(most * fastrand::f64());
        match fastrand::u8(0..if kind == Kind::Wild { 12 } else { 9 }) {
            0 => process.running.abort(),
            1 => _ = process.stop.send_replace(true),
            2 => process.ice.freeze(seconds(5.0)),
            3 => process.ice.freeze(seconds(45.0)),
            4 => self.town.lease.touch(),
            5 => weather(&self.town.to_lease, seconds(25.0)),
            6 => weather(&self.town.to_store, seconds(10.0)),
            7 | 8 => self.town.to_lease.send_modify(|now| now.latency = seconds(2.0)),
            9 => self.town.lease.delete(),
            10 => self.town.store.set(None),
            _ => self.town.store.set(Some(Epoch { epoch: 1, holder: "restored".into(), ..Epoch::default() })),
        }
    }
}

/// Bad weather for a while.
fn weather(of: &tokio::sync::watch::Sender<Weather>, time: Duration) {
    of.send_modify(|now| {
        now.down = fastrand::u8(0..3) == 0;
        now.lost = fastrand::u8(0..40);
        now.slow = fastrand::u8(0..40);
    });
    let of = of.clone();
    tokio::spawn(async move {
        sleep(time).await;
        of.send_replace(Weather { latency: Duration::from_millis(30), ..Weather::default() });
    });
}

async fn day(kind: Kind) -> Count {
    let mut street = Street::new(kind);
    let town = street.town.clone();
    let end = Instant::now() + BAD;
    while Instant::now() < end {
        street.pass(Duration::from_millis(fastrand::u64(200..6000))).await;
        street.trouble(kind);
    }
    let fair = Weather { latency: Duration::from_millis(30), ..Weather::default() };
    for to in [&town.to_lease, &town.to_store] {
        to.send_replace(fair);
    }
    // A process that would still freeze itself is replaced.
    town.mishaps.send_replace(0);
    for process in &street.processes {
        process.running.abort();
    }
    street.pass(GOOD).await;
    let accepted = town.accepted_at.try_lock().unwrap().unwrap();
    assert!(Instant::now() - accepted < 2 * RETRY_PERIOD, "somebody works again after the trouble");
    let believe = street.processes.iter().filter(|process| process.believes()).count();
    assert_eq!(believe, 1, "one leads after the trouble");
    for process in &street.processes {
        process.running.abort();
    }
    *town.count.try_lock().unwrap()
}

/// Plays every seed in a runtime of its own, and adds up.
fn play(kind: Kind) -> Count {
    assert!(GOOD > LEASE_DURATION.mul_f64(2.5));
    let days = only().map_or(0..DAYS, |seed| seed..seed + 1);
    let mut sum = Count::default();
    for seed in days.clone() {
        fastrand::seed(seed);
        let day = std::panic::catch_unwind(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(day(kind))
        });
        let day = day.unwrap_or_else(|_| panic!("seed {seed} of {kind:?}"));
        assert_eq!(day.stale_accepted, 0, "seed {seed} of {kind:?}: {day:?}");
        if kind == Kind::Promised {
            assert_eq!(day.two_leaders, 0, "seed {seed}: {day:?}");
            assert_eq!(day.stale_raised, 0, "seed {seed}: {day:?}");
        }
        sum.accepted += day.accepted;
        sum.stale += day.stale;
        sum.stale_raised += day.stale_raised;
        sum.two_leaders += day.two_leaders;
        sum.leaders += day.leaders;
    }
    println!("{kind:?}, {} days: {sum:?}", days.count());
    sum
}

/// The one day that is asked for.
fn only() -> Option<u64> {
    std::env::var("FUSEBOX_SEED").ok().map(|seed| seed.parse().unwrap())
}

#[test]
fn never_two_believe_to_lead_and_no_late_write_is_taken() {
    let sum = play(Kind::Promised);
    assert!(only().is_some() || sum.stale >= 10_000, "too few attempts: {sum:?}");
}

#[test]
fn the_fence_alone_keeps_late_writers_out_where_the_lease_cannot() {
    let sum = play(Kind::Wild);
    assert!(only().is_some() || sum.two_leaders > 0, "the lease alone is not enough: {sum:?}");
}

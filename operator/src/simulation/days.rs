//! Days by seed, and what is counted of them.

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox_policy::keys::{Key, Keys};
use fusebox_policy::wire::Claim;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::time::Instant;

use super::people::NAMES;
use super::place::Place;
use super::rest::{told, wrong};
use super::seeds::{on_all_cores, seeded};
use super::town::Town;
use crate::reconcile::conditions::{reasons, types};

/// How many seeds every run plays.
const SEEDS: u64 = 40;
/// How many days of a seed.
const DAYS: usize = 2;
/// How long a day is bad.
const BAD: Duration = Duration::from_mins(4);
/// How long it may take until nothing is written any more: frozen processes wake, people let go what is held, sweeps
/// and resyncs come twice.
const PATIENCE: Duration = Duration::from_mins(12);
/// Nothing was written for so long: every resync and sweep was there twice.
const SILENCE: Duration = Duration::from_secs(75);
/// How long it stays so.
const STAYS: Duration = Duration::from_mins(10);

/// How much in Consul and etcd is of resources that are gone.
fn orphans(place: &Place) -> usize {
    let all = place.cluster.now().resources;
    let live = |uid: &str| all.values().any(|resource| resource.uid().as_deref() == Some(uid));
    let nodes = place.catalog.state();
    let owners = nodes.values().flat_map(|node| node.entries.values()).filter_map(|e| e.owner(&place.name));
    let keys = Keys::new(&place.name);
    let is_orphan = |(key, value): &(String, String)| match keys.parse(key) {
        Some(Key::Policy(of) | Key::Config(of) | Key::Fleet(of) | Key::Raw(of)) => !all.contains_key(&of),
        Some(Key::Report(..) | Key::Epoch) => false,
        None => {
            let claim = serde_json::from_str(value).ok().filter(|_| key.starts_with(&Keys::raw_claim("")));
            claim.is_some_and(|claim: Claim| claim.cluster == place.name && !live(&claim.uid))
        }
    };
    owners.filter(|uid| !live(uid)).count() + place.store.state().into_iter().filter(is_orphan).count()
}

/// What a seed came to.
#[derive(Debug, Default)]
struct Sum {
    happened: BTreeMap<&'static str, u64>,
    trace: Vec<u64>,
    wrong: Vec<String>,
    writes: usize,
    accepted: u64,
    stale: u64,
    inferred: u64,
    looked_at: u64,
    /// The longest way back to silence.
    settled: Duration,
    /// Virtual time.
    time: Duration,
}

impl Sum {
    fn add(&mut self, other: Self) {
        for (what, n) in other.happened {
            *self.happened.entry(what).or_default() += n;
        }
        self.writes += other.writes;
        self.accepted += other.accepted;
        self.stale += other.stale;
        self.inferred += other.inferred;
        self.looked_at += other.looked_at;
        self.settled = self.settled.max(other.settled);
        self.time += other.time;
    }
}

impl Town {
    fn writes(&self) -> Vec<[usize; 5]> {
        self.places.iter().map(|place| place.writes()).collect()
    }

    fn wrongs(&self) -> Vec<String> {
        let wrong = self.places.iter().flat_map(|place| place.judge.try_lock().unwrap().wrong.clone());
        wrong.collect()
    }

    /// People look after what is held back. Was there something?
    fn let_go(&mut self) -> bool {
        let mut found = false;
        for at in 0..self.places.len() {
            for (of, resource) in self.places[at].cluster.now().resources {
                if told(&resource, types::REGISTERED) == Some(reasons::DELETIONS_HELD) {
                    found |= self.proceed(at, &of, true);
                }
            }
            let orphans = orphans(&self.places[at]);
            if orphans > 0 && !self.free[at] {
                found = true;
                self.free[at] = true;
                for slot in &self.slots[at] {
                    slot.process.stop.send_replace(true);
                }
            }
        }
        found
    }

    /// One day. Err: what is wrong.
    async fn day(&mut self) -> Result<Duration, Vec<String>> {
        self.morning();
        let end = Instant::now() + BAD;
        while Instant::now() < end {
            self.trouble();
            self.pass(Duration::from_millis(fastrand::u64(250..6000))).await;
        }
        self.heal();
        let healing = Instant::now();
        let (mut writes, mut since) = (self.writes(), healing);
        loop {
            if Instant::now().duration_since(since) >= SILENCE && self.later.is_empty() {
                if !self.let_go() {
                    break;
                }
                since = Instant::now();
            }
            self.pass(Duration::from_secs(5)).await;
            if self.writes() != writes {
                (writes, since) = (self.writes(), Instant::now());
            }
            if Instant::now().duration_since(healing) > PATIENCE {
                return Err(vec!["it does not come to rest".into()]);
            }
        }
        let settled = since.duration_since(healing);
        self.judged().await?;
        let before = self.writes();
        self.pass(STAYS).await;
        if self.writes() != before {
            return Err(vec![format!("written at rest: {before:?}, {:?}", self.writes())]);
        }
        self.judged().await?;
        for at in 0..self.places.len() {
            for (namespace, name) in NAMES {
                self.proceed(at, &fusebox_policy::keys::Ident::new(namespace, name), false);
            }
            if self.slots[at].iter().filter(|slot| slot.process.believes()).count() != 1 {
                return Err(vec!["not exactly one leads".into()]);
            }
        }
        Ok(settled)
    }

    pub async fn judged(&self) -> Result<(), Vec<String>> {
        let mut all = self.wrongs();
        for place in &self.places {
            all.extend(wrong(place).await);
        }
        if all.is_empty() { Ok(()) } else { Err(all) }
    }
}

async fn days() -> Sum {
    let start = Instant::now();
    let mut town = Town::new(1 + usize::from(fastrand::u8(0..3) == 0));
    let mut sum = Sum::default();
    // Everything is in place before anything happens.
    town.pass(Duration::from_secs(40)).await;
    for day in 0..DAYS {
        match town.day().await {
            Ok(settled) => sum.settled = sum.settled.max(settled),
            Err(wrong) => {
                sum.wrong = town.wrongs();
                sum.wrong.push(format!("at the end of day {day}:"));
                sum.wrong.extend(wrong);
                break;
            }
        }
    }
    for place in &town.places {
        let tally = place.judge.try_lock().unwrap().tally;
        sum.writes += place.writes().iter().sum::<usize>();
        sum.accepted += tally.accepted;
        sum.stale += tally.stale;
        sum.inferred += tally.inferred;
        sum.looked_at += tally.looked_at;
    }
    sum.trace = town.trace();
    sum.happened = std::mem::take(&mut town.happened);
    sum.time = Instant::now().duration_since(start);
    town.end();
    sum
}

fn play(seed: u64) -> Sum {
    seeded(seed, days())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Plays seeds from `first` on, on all cores: so many, or until `end`.
fn play_all(first: u64, most: u64, end: Option<Timestamp>) -> (u64, Sum, Vec<u64>) {
    let all = on_all_cores(|n| {
        // The wall clock decides how many seeds there are, and nothing else.
        if n >= most || end.is_some_and(|end| Timestamp::now() > end) {
            return None;
        }
        let seed = first.wrapping_add(n);
        let one = Sum { trace: Vec::new(), ..play(seed) };
        if !one.wrong.is_empty() {
            println!("seed {seed}: {}\n{} plays it again", one.wrong.join("\n  "), replay(seed));
        }
        Some((seed, one))
    });
    let (seeds, mut sum, mut failed) = (all.len() as u64, Sum::default(), Vec::new());
    for (seed, one) in all {
        if !one.wrong.is_empty() {
            failed.push(seed);
        }
        sum.add(one);
    }
    (seeds, sum, failed)
}

fn replay(seed: u64) -> String {
    format!("FUSEBOX_SEED={seed} cargo test -p fusebox-operator --lib simulation::days::whole -- --nocapture")
}

#[test]
fn whole_operators_survive_bad_days() {
    let long = fusebox_processes::long();
    let only = variable("FUSEBOX_SEED");
    let (first, most, end) = match only {
        Some(seed) => (seed, 1, None),
        None if long => {
            let seconds = variable("FUSEBOX_SECONDS").unwrap_or(300);
            let end = Timestamp::now() + SignedDuration::from_secs(seconds.cast_signed());
            (fastrand::u64(1_000_000..1 << 40), u64::MAX, Some(end))
        }
        None => (0, variable("FUSEBOX_SEEDS").unwrap_or(SEEDS), None),
    };
    let (seeds, sum, failed) = play_all(first, most, end);
    println!(
        "seeds from {first} on: {seeds}, {} bad days, {} h of virtual time, {} writes; transactions taken {}, late \
         ones of deposed leaders refused {}; {} deregistrations and critical checks looked at, {} of them inferred; \
         silent after at most {:?}",
        seeds * DAYS as u64,
        sum.time.as_secs() / 3600,
        sum.writes,
        sum.accepted,
        sum.stale,
        sum.looked_at,
        sum.inferred,
        sum.settled,
    );
    let happened: Vec<String> = sum.happened.iter().map(|(what, n)| format!("{what} {n}")).collect();
    println!("what happened: {}", happened.join(", "));
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    assert!(only.is_some() || (sum.stale > 0 && sum.inferred > 0), "the days try nothing");
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in [3, 4] {
        let (one, other) = (play(seed), play(seed));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_ne!(one.trace, play(seed + 1000).trace);
    }
}

//! The way back from one fault, kind by kind, in virtual time: from its end until what is in the backends and in the
//! statuses is what it stays. Just before it, and once more while it lasts, a resource is edited and an instance comes.

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use tokio::time::Instant;

use super::damage::{CONSUL, ETCD};
use super::people::NAMES;
use super::rest::lines;
use super::seeds::{on_all_cores, seeded};
use super::town::{Bad, Later, Town};
use super::view::Sight;
use crate::world::Weather;

/// How often each fault happens in every run, and with `FUSEBOX_LONG=1`.
const TIMES: [u64; 2] = [8, 100];
/// Nothing changed for so long: every resync and sweep was there twice.
const SILENCE: Duration = Duration::from_secs(75);
const PATIENCE: Duration = Duration::from_mins(10);
/// How long one lasts that has no length of its own.
const MINUTE: Duration = Duration::from_mins(1);

/// A process's ways, by their place.
const TO_API: usize = 0;
const TO_CONSUL: usize = 1;
const TO_ETCD: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Killed,
    Ended,
    Unseen,
    Away(&'static [usize]),
    Lossy(&'static [usize]),
    Alone,
    Frozen,
    LeaseDeleted,
    Recreated,
    FinalizerRemoved,
    Wiped(usize),
    Restored(usize),
    EntryChanged,
    KeyChanged,
    RouteChanged,
    ServiceAway,
}

/// Rows of the matrix in `docs/reliability.md`, what happens, and the longest way back in seconds.
const FAULTS: [(&str, &str, Fault, u64); 24] = [
    ("", "none, a resource is edited", Fault::None, 2),
    ("F1, F2", "the leader is killed", Fault::Killed, 20),
    ("F3", "the leader is told to end", Fault::Ended, 10),
    ("F5", "events missing for 10 s", Fault::Unseen, 5),
    ("F7", "the API server away for a minute", Fault::Away(&[TO_API]), 10),
    ("F8", "the API server slow and lossy for a minute", Fault::Lossy(&[TO_API]), 35),
    ("F10", "a resource deleted, and created anew", Fault::Recreated, 5),
    ("F11", "a finalizer removed by hand", Fault::FinalizerRemoved, 35),
    ("F12", "the leader frozen for 45 s", Fault::Frozen, 20),
    ("F13", "the leader without the API server for a minute", Fault::Alone, 20),
    ("F14", "the Lease deleted", Fault::LeaseDeleted, 20),
    ("F17", "etcd away for a minute", Fault::Away(&[TO_ETCD]), 10),
    ("F17", "etcd slow and lossy for a minute", Fault::Lossy(&[TO_ETCD]), 35),
    ("F17", "etcd wiped", Fault::Wiped(ETCD), 35),
    ("F17", "etcd restored from a backup", Fault::Restored(ETCD), 35),
    ("F18, F22", "a key in etcd changed by somebody", Fault::KeyChanged, 35),
    ("F19", "Consul away for a minute", Fault::Away(&[TO_CONSUL]), 10),
    ("F19", "Consul slow and lossy for a minute", Fault::Lossy(&[TO_CONSUL]), 35),
    ("F20", "Consul wiped", Fault::Wiped(CONSUL), 35),
    ("F20", "Consul restored from a backup", Fault::Restored(CONSUL), 35),
    ("F22", "an entry in Consul changed by somebody", Fault::EntryChanged, 35),
    ("F22", "a route changed by somebody", Fault::RouteChanged, 35),
    ("F25", "a Service away for 5 s", Fault::ServiceAway, 5),
    ("F26", "all three away for a minute", Fault::Away(&[TO_API, TO_CONSUL, TO_ETCD]), 10),
];

/// Lets it happen; how long it lasts. A process that is ill is none that the others have to wait for.
fn strike(fault: Fault, town: &mut Town) -> Duration {
    let leads = town.slots[0].iter().position(|slot| slot.process.believes()).expect("one leads");
    let leader = &town.slots[0][leads].process;
    let down = Weather { down: true, ..Weather::default() };
    let lossy = Weather { lost: 30, slow: 30, ..Weather::default() };
    let seconds = Duration::from_secs;
    match fault {
        Fault::None => {}
        Fault::Killed => leader.running.abort(),
        Fault::Ended => _ = leader.stop.send_replace(true),
        Fault::Unseen => {
            leader.sight.send_replace(Sight { broken: true, ..Sight::default() });
            town.after(seconds(10), Later::Mend(0, leads));
            return seconds(10);
        }
        Fault::Away(ways) => return rain(town, None, ways, down),
        Fault::Lossy(ways) => return rain(town, None, ways, lossy),
        Fault::Alone => _ = rain(town, Some((0, leads)), &[TO_API], down),
        Fault::Frozen => leader.ice.freeze(seconds(45)),
        Fault::LeaseDeleted => town.places[0].lease.delete(),
        Fault::Recreated => {
            let of = some();
            town.delete(0, &of);
            town.after(seconds(1), Later::Recreate(0, of));
            return seconds(1);
        }
        Fault::FinalizerRemoved => town.force_away(0, &some()),
        Fault::Wiped(store) => _ = town.wipe(store),
        Fault::Restored(store) => _ = town.restore(store),
        Fault::EntryChanged => _ = town.change_entry(0),
        Fault::KeyChanged => _ = town.change_key(0),
        Fault::RouteChanged => _ = town.change_route(0),
        Fault::ServiceAway => {
            let of = some();
            town.places[0].change(|cluster| cluster.services.try_lock().unwrap().remove(&of));
            town.after(seconds(5), Later::Service(0, of));
            return seconds(5);
        }
    }
    Duration::ZERO
}

fn some() -> Ident {
    let (namespace, name) = NAMES[fastrand::usize(0..NAMES.len())];
    Ident::new(namespace, name)
}

/// A minute's weather on these ways of one replica, or of all.
fn rain(town: &mut Town, of: Option<(usize, usize)>, ways: &[usize], weather: Weather) -> Duration {
    let until = Instant::now() + MINUTE;
    town.bad.extend(ways.iter().map(|&way| Bad { of, way, weather, until }));
    town.forecast();
    MINUTE
}

/// Work for the operator.
fn work(town: &mut Town) {
    town.declare(0, &some());
    town.scale(0, &some(), 1);
}

/// How long the way back was, and what came last. Err: what is wrong at its end.
async fn way_back(strikes: Fault) -> Result<(Duration, Vec<String>), Vec<String>> {
    let mut town = Town::new(1);
    town.heal();
    for (namespace, name) in NAMES {
        town.declare(0, &Ident::new(namespace, name));
    }
    town.pass(MINUTE).await;
    town.back_up(CONSUL);
    town.back_up(ETCD);
    work(&mut town);
    town.pass(Duration::from_millis(fastrand::u64(0..2000))).await;
    let lasts = strike(strikes, &mut town);
    let end = Instant::now() + lasts;
    if !lasts.is_zero() {
        town.pass(lasts.mul_f64(fastrand::f64())).await;
        work(&mut town);
        town.pass(end.duration_since(Instant::now())).await;
    }
    let all = |town: &Town| lines(&town.places[0], &BTreeMap::new());
    let (mut there, mut since, mut last) = (all(&town), end, Vec::new());
    while Instant::now().duration_since(since) < SILENCE || !town.later.is_empty() {
        town.pass(Duration::from_millis(250)).await;
        let now = all(&town);
        if now != there {
            last = there.symmetric_difference(&now).cloned().collect();
            (there, since) = (now, Instant::now());
        }
        if Instant::now().duration_since(end) > PATIENCE {
            return Err(vec!["it does not come to rest".into()]);
        }
    }
    town.judged().await?;
    town.end();
    Ok((since.duration_since(end), last))
}

/// Plays one again, if `FUSEBOX_SEED` and `FUSEBOX_FAULT` say which.
fn again() -> bool {
    let (Ok(seed), Ok(of)) = (std::env::var("FUSEBOX_SEED"), std::env::var("FUSEBOX_FAULT")) else {
        return false;
    };
    let (_, _, fault, _) = FAULTS.into_iter().find(|(_, what, ..)| *what == of).expect("a fault of these");
    println!("{of}, seed {seed}: {:#?}", seeded(seed.parse().expect("a number"), way_back(fault)));
    true
}

#[test]
fn the_way_back_from_each_fault_is_short() {
    if again() {
        return;
    }
    let long = fusebox_processes::long();
    let times = TIMES[usize::from(long)];
    let found = on_all_cores(|n| {
        let (fault, seed) = (usize::try_from(n / times).unwrap(), n % times);
        let (_, _, strikes, _) = FAULTS.get(fault)?;
        Some((fault, seed, seeded(seed, way_back(*strikes))))
    });
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (n, (rows, what, _, bound)) in FAULTS.iter().enumerate() {
        let (mut ways, bound) = (Vec::new(), Duration::from_secs(*bound));
        for (_, seed, way) in found.iter().filter(|(fault, ..)| *fault == n) {
            match way {
                Ok((way, last)) => {
                    if *way > bound {
                        wrong.push(format!(
                            "{what}, seed {seed}: {way:?} back, last\n  {}",
                            last.join("\n  ")
                        ));
                    }
                    ways.push(*way);
                }
                Err(why) => wrong.push(format!("{what}, seed {seed}: {}", why.join("\n  "))),
            }
        }
        println!("{rows}: {what}: {}; at most {bound:?}", told(&mut ways));
        all.extend(ways);
    }
    println!("all: {}", told(&mut all));
    assert!(
        wrong.is_empty(),
        "{}\nFUSEBOX_SEED=n FUSEBOX_FAULT='…' cargo test -p fusebox-operator --lib -- --nocapture the_way_back_from \
         plays one again",
        wrong.join("\n")
    );
}

fn told(ways: &mut [Duration]) -> String {
    ways.sort();
    let at = |share: usize| ways.get((ways.len() * share / 100).min(ways.len().saturating_sub(1))).copied();
    let [half, most, all] = [50, 99, 100].map(|share| at(share).unwrap_or_default());
    format!("{} times, half within {half:.1?}, 99 % within {most:.1?}, all within {all:.1?}", ways.len())
}

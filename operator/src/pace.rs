//! Tells of the first change at once, and of those that follow together, later.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The least time between two notices of one resource that somebody changed behind our back.
pub const PACE: Duration = Duration::from_millis(500);

/// Of all resources.
#[derive(Clone, Debug)]
pub struct Pace<Of> {
    every: Duration,
    told: HashMap<Of, Instant>,
    waiting: HashSet<Of>,
}

impl<Of: Clone + Eq + Hash> Pace<Of> {
    /// With this time between two notices of one.
    pub fn of(every: Duration) -> Self {
        Self { every, told: HashMap::new(), waiting: HashSet::new() }
    }

    /// Does one have to wait?
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A change: is it told of now?
    pub fn note(&mut self, of: Of, now: Instant) -> Option<Of> {
        if self.told.get(&of).is_some_and(|told| now.duration_since(*told) < self.every) {
            self.waiting.insert(of);
            return None;
        }
        self.told.insert(of.clone(), now);
        Some(of)
    }

    /// What is told of now, of all that had to wait.
    pub fn due(&mut self, now: Instant) -> Vec<Of> {
        self.told.retain(|_, told| now.duration_since(*told) < self.every);
        let due: Vec<Of> = self.waiting.iter().filter(|of| !self.told.contains_key(of)).cloned().collect();
        for of in &due {
            self.waiting.remove(of);
            self.told.insert(of.clone(), now);
        }
        due
    }
}

/// Hands on what comes, each at most once in `every`; what comes in between is one notice more, at its end.
pub async fn paced<Of: Clone + Eq + Hash>(
    every: Duration,
    mut from: mpsc::UnboundedReceiver<Of>,
    tell: impl Fn(Of),
) {
    let mut pace = Pace::of(every);
    loop {
        tokio::select! {
            of = from.recv() => {
                let Some(of) = of else { return };
                pace.note(of, Instant::now()).into_iter().for_each(&tell);
            }
            // A part of it, so that nobody waits for much longer.
            () = sleep(every / 4), if pace.is_waiting() => {}
        }
        pace.due(Instant::now()).into_iter().for_each(&tell);
    }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::keys::Ident;
    use tokio::sync::watch;

    use super::*;

    /// A thousand changes of one in ten seconds, and one of another.
    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_ten_times_a_second_and_its_last_change_is_told_of() {
        let (change, changes) = mpsc::unbounded_channel();
        let (start, told) = (Instant::now(), watch::Sender::new(Vec::new()));
        let every = Duration::from_millis(100);
        let telling = told.clone();
        let task = tokio::spawn(paced(every, changes, move |of| {
            telling.send_modify(|told| told.push((of, Instant::now())));
        }));
        let of = |who: &'static str| {
            let all = told.borrow();
            all.iter().filter(|(told, _)| *told == who).map(|(_, at)| *at).collect::<Vec<Instant>>()
        };
        for n in 0..1000 {
            change.send("flapping").unwrap();
            if n == 500 {
                change.send("other").unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
        let last = Instant::now();
        sleep(every * 2).await;
        assert_eq!(of("other"), [start + Duration::from_secs(5)], "at once");
        let times = of("flapping");
        assert_eq!(times[0], start);
        assert!(times.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= every), "{times:?}");
        assert!(times.len() > 70, "{}", times.len());
        assert!(*times.last().unwrap() + Duration::from_millis(10) >= last, "the last one, {times:?}");
        let before = times.len();
        sleep(every * 20).await;
        assert_eq!(of("flapping").len(), before, "nothing more comes of it");
        drop(change);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_twice() {
        let (mut pace, user) = (Pace::of(PACE), Ident::new("shop", "user"));
        assert_eq!(pace.note(user.clone(), Instant::now()), Some(user.clone()));
        assert_eq!(pace.note(user.clone(), Instant::now()), None);
        assert_eq!(pace.note(user.clone(), Instant::now()), None);
        assert!(pace.due(Instant::now()).is_empty());
        tokio::time::advance(PACE).await;
        assert_eq!(pace.due(Instant::now()), [user]);
        assert!(pace.due(Instant::now()).is_empty());
    }
}

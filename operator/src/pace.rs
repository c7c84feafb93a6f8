//! Tells of the first change at once, and of those that follow together, later.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fusebox_policy::keys::Ident;
use tokio::time::Instant;

/// The least time between two notices of one resource.
pub const PACE: Duration = Duration::from_millis(500);

/// Of all resources.
#[derive(Debug, Default)]
pub struct Pace {
    told: HashMap<Ident, Instant>,
    waiting: HashSet<Ident>,
}

impl Pace {
    /// A change: is it told of now?
    pub fn note(&mut self, of: Ident, now: Instant) -> Option<Ident> {
        if self.told.get(&of).is_some_and(|told| now.duration_since(*told) < PACE) {
            self.waiting.insert(of);
            return None;
        }
        self.told.insert(of.clone(), now);
        Some(of)
    }

    /// What is told of now, of all that had to wait.
    pub fn due(&mut self, now: Instant) -> Vec<Ident> {
        self.told.retain(|_, told| now.duration_since(*told) < PACE);
        let due: Vec<Ident> = self.waiting.iter().filter(|of| !self.told.contains_key(of)).cloned().collect();
        for of in &due {
            self.waiting.remove(of);
            self.told.insert(of.clone(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_twice() {
        let (mut pace, user) = (Pace::default(), Ident::new("shop", "user"));
        assert_eq!(pace.note(user.clone(), Instant::now()), Some(user.clone()));
        assert_eq!(pace.note(user.clone(), Instant::now()), None);
        assert_eq!(pace.note(user.clone(), Instant::now()), None);
        assert!(pace.due(Instant::now()).is_empty());
        tokio::time::advance(PACE).await;
        assert_eq!(pace.due(Instant::now()), [user]);
        assert!(pace.due(Instant::now()).is_empty());
    }
}

//! What this process last meant each thing in a backend to be. A watch that shows it so tells nothing new: it is our
//! own write, or one of somebody else who wants the same.
//!
//! # Assumptions
//! - It is told before the write is sent: a watch may be faster than the answer.
//! - A watch shows what was written in its order, though not every step.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::watch;

/// How many writes of one thing a watch may be behind.
const BEHIND: usize = 64;

/// Shared.
#[derive(Clone, Debug, Default)]
pub struct Intents(Arc<watch::Sender<HashMap<String, VecDeque<Option<u64>>>>>);

impl Intents {
    /// `what` is meant to have this content; None: to be absent.
    pub fn meant(&self, what: impl Into<String>, content: Option<&[u8]>) {
        let content = content.map(hash);
        self.0.send_modify(|all| {
            let steps = all.entry(what.into()).or_default();
            if steps.back() != Some(&content) {
                steps.push_back(content);
            }
            if steps.len() > BEHIND {
                steps.pop_front();
            }
        });
    }

    /// Nobody knows what became of the last of it: it may have been refused, and may come later than its answer should
    /// have. Whatever a watch shows next is news.
    pub fn doubt(&self, what: &str) {
        self.0.send_if_modified(|all| all.remove(what).is_some());
    }

    /// A watch showed it as before: what it was meant to be on the way to that is over, though it was never seen.
    pub fn stays(&self, what: &str, content: impl FnOnce() -> Vec<u8>) {
        if self.0.borrow().get(what).is_none_or(|steps| steps.len() < 2) {
            return;
        }
        let content = Some(hash(&content()));
        self.0.send_if_modified(|all| {
            let Some(steps) = all.get_mut(what) else { return false };
            let Some(at) = steps.iter().rposition(|step| *step == content) else { return false };
            steps.drain(..at).len() > 0
        });
    }

    /// Is this what it was last meant to be, or a step on the way that was not seen yet? Of what this process never
    /// wrote nobody knows: no.
    pub fn fits(&self, what: &str, content: Option<&[u8]>) -> bool {
        let content = content.map(hash);
        let mut fits = false;
        self.0.send_if_modified(|all| {
            let Some(steps) = all.get_mut(what) else { return false };
            let Some(at) = steps.iter().position(|step| *step == content) else { return false };
            fits = true;
            steps.drain(..at);
            // What is gone is forgotten, lest the names of all that ever was be kept.
            if content.is_none() && steps.len() == 1 {
                all.remove(what);
            }
            true
        });
        fits
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_meant_is_no_news() {
        let intents = Intents::default();
        assert!(!intents.fits("a", Some(b"1")) && !intents.fits("a", None), "nobody meant anything");
        intents.meant("a", Some(b"1"));
        assert!(intents.fits("a", Some(b"1")) && intents.fits("a", Some(b"1")));
        assert!(!intents.fits("a", Some(b"2")) && !intents.fits("a", None));
        intents.meant("a", None);
        assert!(intents.fits("a", Some(b"1")), "it is not seen yet");
        assert!(intents.fits("a", None));
        assert!(!intents.fits("a", None), "what is gone is forgotten");
    }

    #[test]
    fn a_watch_may_be_behind_but_not_go_back() {
        let intents = Intents::default();
        for step in [Some(&b"1"[..]), Some(b"2"), None, Some(b"3"), Some(b"4")] {
            intents.meant("a", step);
        }
        assert!(intents.fits("a", Some(b"1")) && intents.fits("a", None), "a step may be left out");
        assert!(!intents.fits("a", Some(b"2")), "somebody put it back");
        assert!(intents.fits("a", Some(b"4")));
        assert!(!intents.fits("a", Some(b"3")) && !intents.fits("a", None));
        for n in 0..1000_u32 {
            intents.meant("b", Some(&n.to_be_bytes()));
        }
        assert!(intents.0.borrow()["b"].len() <= BEHIND);
        assert!(intents.fits("b", Some(&999_u32.to_be_bytes())));
    }
}

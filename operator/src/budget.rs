//! How much may be deleted because it seems to be gone, not because somebody said so. Pure: the time is an argument.
//!
//! What is asked for together is let go or held together. It is let go if everything that went within the window and
//! everything that is waiting, whoever asks for it, is no more than a share of what is registered. So what comes a
//! little too fast is delayed until the window has moved on; what is too much at once is held until it is back, or a
//! person says that it may go. See ADR 12.
//!
//! # Guarantees
//! - No more than [`limit`] of what was registered goes within [`WINDOW`], whatever the order of questions.
//! - To ask again for what was let go within the window costs nothing, so a write that failed may be repeated.
//!
//! # Caveats
//! - It is in memory: a process that starts has forgotten what went within the last minute. What is too much at once
//!   still is.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// For how long what went is remembered.
pub const WINDOW: Duration = Duration::from_mins(1);
/// As many may always go.
pub const LEAST: usize = 10;
/// Of what is registered, in percent.
pub const PERCENT: usize = 30;

/// How many of so many registered may go within the window.
pub fn limit(registered: usize) -> usize {
    LEAST.max(registered.saturating_mul(PERCENT) / 100)
}

/// Something that is registered: the part of the store that it is counted in, and its id.
pub type Item = (String, String);

/// Of one store.
#[derive(Debug, Default)]
pub struct Budget {
    /// How much is registered, by part.
    registered: HashMap<String, usize>,
    /// What was let go, and when.
    gone: HashMap<Item, Instant>,
    /// What may not go yet, by who asked.
    held: HashMap<String, BTreeSet<Item>>,
}

impl Budget {
    /// So much was seen in a part of the store.
    pub fn count(&mut self, part: &str, registered: usize) {
        self.registered.insert(part.to_owned(), registered);
    }

    /// So much was seen in all of it, and no part beside these exists.
    pub fn count_all(&mut self, parts: impl IntoIterator<Item = (String, usize)>) {
        self.registered = parts.into_iter().collect();
    }

    /// May all of this go? It takes the place of what `who` asked for before.
    pub fn ask(&mut self, who: &str, what: BTreeSet<Item>, now: Instant) -> bool {
        self.gone.retain(|_, at| now.duration_since(*at) < WINDOW);
        self.held.remove(who);
        let new: BTreeSet<Item> = what.into_iter().filter(|item| !self.gone.contains_key(item)).collect();
        let all = self.gone.len() + self.held() + new.len();
        let registered = self.registered.values().sum::<usize>() + self.gone.len();
        if new.is_empty() || all <= limit(registered) {
            for (part, _) in &new {
                if let Some(count) = self.registered.get_mut(part) {
                    *count = count.saturating_sub(1);
                }
            }
            self.gone.extend(new.into_iter().map(|item| (item, now)));
            return true;
        }
        self.held.insert(who.to_owned(), new);
        false
    }

    /// `who` asks for nothing any more.
    pub fn withdraw(&mut self, who: &str) {
        self.held.remove(who);
    }

    /// Nobody else can ask any more.
    pub fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.held.retain(|who, _| exists(who));
    }

    /// How much is held.
    pub fn held(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(range: std::ops::Range<usize>) -> BTreeSet<Item> {
        range.map(|n| ("node".to_owned(), format!("{n:05}"))).collect()
    }

    fn of(registered: usize) -> Budget {
        let mut budget = Budget::default();
        budget.count("node", registered);
        budget
    }

    #[test]
    fn ten_or_three_tenths_may_go() {
        for (registered, most) in [(0, 10), (20, 10), (33, 10), (34, 10), (40, 12), (100, 30), (1000, 300)] {
            assert_eq!(limit(registered), most, "{registered}");
            assert!(of(registered).ask("a", items(0..most), Instant::now()), "{registered}");
            assert!(!of(registered).ask("a", items(0..most + 1), Instant::now()), "{registered}");
        }
    }

    #[test]
    fn what_went_counts_for_a_minute_and_three_tenths_are_of_what_was_there_before() {
        let (mut budget, start) = (of(100), Instant::now());
        for n in 0..3 {
            assert!(budget.ask("a", items(n * 10..n * 10 + 10), start));
            // What is left is counted again, or not.
            budget.count("node", 90 - n * 10);
        }
        assert!(!budget.ask("b", items(30..31), start));
        assert!(!budget.ask("b", items(30..31), start + WINDOW - Duration::from_millis(1)));
        assert_eq!(budget.held(), 1);
        assert!(budget.ask("b", items(30..31), start + WINDOW), "a little too fast is only late");
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_is_too_much_at_once_does_not_go_however_long_it_waits_and_whoever_asks() {
        let (mut budget, start) = (of(100), Instant::now());
        let mut gone = [false; 20];
        for minute in 0..10 {
            for (who, gone) in gone.iter_mut().enumerate() {
                let asked = items(who * 5..who * 5 + 5);
                *gone = *gone || budget.ask(&who.to_string(), asked, start + WINDOW * minute);
            }
        }
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 6, "30 of 100: the first ones could not know");
        assert_eq!(budget.held(), 70);
        // All but a few are back.
        for who in 0..20 {
            budget.ask(&who.to_string(), BTreeSet::new(), start + WINDOW * 11);
        }
        assert!(budget.ask("19", items(95..100), start + WINDOW * 11));
    }

    #[test]
    fn to_ask_again_costs_nothing() {
        let (mut budget, start) = (of(0), Instant::now());
        for _ in 0..5 {
            assert!(budget.ask("a", items(0..10), start));
        }
        assert!(!budget.ask("a", items(0..11), start), "one more does");
        assert_eq!(budget.held(), 1, "what went does not wait");
    }

    #[test]
    fn who_is_gone_or_lets_be_holds_up_nobody() {
        let (mut budget, start) = (of(0), Instant::now());
        assert!(!budget.ask("gone", items(0..11), start) && !budget.ask("a", items(20..21), start));
        budget.keep(|who| who != "gone");
        assert!(budget.ask("a", items(20..21), start));
        assert!(!budget.ask("b", items(30..50), start));
        budget.withdraw("b");
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_part_that_is_gone_is_no_base() {
        let mut budget = of(1000);
        budget.count_all([("other".to_owned(), 20)]);
        assert!(!budget.ask("a", items(0..11), Instant::now()));
    }
}

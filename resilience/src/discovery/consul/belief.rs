//! What to ask Consul next, and whether to believe its answer: pure.

use std::time::Duration;

use crate::clock::Now;

/// For how long an empty list is doubted that comes after Consul was away or lost its data: whoever registers
/// the instances needs a while to notice and to register them again.
const DOUBT: Duration = Duration::from_mins(2);

/// Where the answers to a blocking query stand.
#[derive(Debug, Default)]
pub(super) struct Belief {
    /// What to ask with: zero asks for an answer at once.
    ask: u64,
    /// The newest index heard.
    heard: u64,
    /// The list that was believed last had instances.
    listed: bool,
    /// Since that list Consul was away, or its index went backwards.
    shaken: bool,
    doubted: Option<Now>,
}

/// What to do with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Believed,
    /// It is kept from use: a list that has vanished like this was more likely lost than emptied.
    Doubted,
}

impl Belief {
    /// The index to ask with.
    pub(super) const fn index(&self) -> u64 {
        self.ask
    }

    /// An answer with this index; one without, or with one below 1, has 0.
    pub(super) fn hear(&mut self, index: u64, empty: bool, now: Now) -> Verdict {
        // Backwards: Consul was restored or replaced. Its answers count from anew, and the next must not wait
        // for an index that is far away.
        let backwards = index < self.heard;
        self.shaken |= backwards;
        self.heard = index;
        self.ask = if backwards { 0 } else { index };
        if empty && self.listed && self.shaken {
            let since = *self.doubted.get_or_insert(now);
            if now.since(since) < DOUBT {
                self.ask = 0;
                return Verdict::Doubted;
            }
        }
        (self.listed, self.shaken, self.doubted) = (!empty, backwards && !empty, None);
        Verdict::Believed
    }

    /// No answer: the next question asks for one at once.
    pub(super) const fn lost(&mut self) {
        self.ask = 0;
        self.shaken = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Believed, Doubted};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_index_that_goes_backwards_begins_anew() {
        let mut belief = Belief::default();
        let mut hear = |index| {
            belief.hear(index, false, Now(0));
            belief.index()
        };
        assert_eq!([hear(40), hear(40), hear(41)], [40, 40, 41], "a return is no proof of a change");
        assert_eq!([hear(7), hear(7), hear(8)], [0, 7, 8], "it is asked once without an index");
        assert_eq!([hear(0), hear(3)], [0, 3], "an index is above zero, or there is none");
        belief.lost();
        assert_eq!(belief.index(), 0);
    }

    #[test]
    fn an_empty_list_is_believed_of_a_consul_that_was_there_all_the_time() {
        let mut belief = Belief::default();
        assert_eq!(belief.hear(5, true, Now(0)), Believed, "the first");
        assert_eq!(belief.hear(6, false, Now(0)), Believed);
        assert_eq!(belief.hear(7, true, Now(0)), Believed, "scaled to zero");
    }

    #[test]
    fn a_list_that_was_lost_is_no_empty_list() {
        for (name, restart) in [("away", true), ("wiped while we were not looking", false)] {
            let mut belief = Belief::default();
            belief.hear(900, false, Now(0));
            if restart {
                belief.lost();
            }
            for second in 0..120 {
                assert_eq!(belief.hear(12 + second, true, Now(second * SECOND)), Doubted, "{name}");
                assert_eq!(belief.index(), 0, "nothing would wake a query that waits");
            }
            assert_eq!(belief.hear(140, true, Now(120 * SECOND)), Believed, "{name}: it stays empty");
        }
    }

    #[test]
    fn what_comes_back_ends_the_doubt() {
        let mut belief = Belief::default();
        belief.hear(900, false, Now(0));
        belief.lost();
        assert_eq!(belief.hear(12, true, Now(0)), Doubted);
        assert_eq!(belief.hear(13, false, Now(SECOND)), Believed);
        assert_eq!(belief.hear(14, true, Now(2 * SECOND)), Believed, "emptied, after all was well again");
        belief.hear(15, false, Now(3 * SECOND));
        belief.lost();
        assert_eq!(belief.hear(16, true, Now(200 * SECOND)), Doubted, "the time of doubt begins anew");
    }
}

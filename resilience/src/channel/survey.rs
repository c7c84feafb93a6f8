//! Who is called and who is ejected, of all endpoints: pure.

use crate::clock::Tick;

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Since when its breaker is not closed; None: it is.
    pub(super) bad_since: Option<Tick>,
    /// In the caller's zone.
    pub(super) local: bool,
}

/// How far ejection may go, and where it is better to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// So many of a hundred endpoints are ejected at most, rounded down. Further bad ones are called.
    pub(super) max_ejected_percent: u8,
    /// With fewer good ones of a hundred than this nobody is ejected.
    pub(super) panic_percent: u8,
    /// The caller's zone is enough if it has so many good endpoints.
    pub(super) zone_at_least: usize,
}

/// Who is called and who is ejected: places in the list that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) usable: Vec<usize>,
    pub(super) ejected: Vec<usize>,
}

/// Applies the rules. Those that are bad for longest are ejected first.
pub(super) fn survey(all: &[Seen], rules: Rules) -> Survey {
    let mut bad: Vec<_> = (0..all.len()).filter_map(|n| Some((all[n].bad_since?, n))).collect();
    bad.sort_unstable();
    let good = all.len() - bad.len();
    let panic = good * 100 < usize::from(rules.panic_percent) * all.len();
    let most = if panic { 0 } else { all.len() * usize::from(rules.max_ejected_percent) / 100 };
    let mut ejected: Vec<_> = bad.into_iter().take(most).map(|(_, n)| n).collect();
    ejected.sort_unstable();
    let mut usable: Vec<_> = (0..all.len()).filter(|n| ejected.binary_search(n).is_err()).collect();
    let good_here = |n: &usize| all[*n].local && all[*n].bad_since.is_none();
    let here = usable.iter().filter(|n| good_here(n)).count();
    if here > 0 && here >= rules.zone_at_least {
        usable.retain(good_here);
    }
    Survey { usable, ejected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { max_ejected_percent: 50, panic_percent: 25, zone_at_least: 2 };

    /// `.` good, a digit: bad since then; a letter instead of the dot: in the caller's zone.
    fn seen(text: &str) -> Vec<Seen> {
        let one = |c: char| Seen { bad_since: c.to_digit(10).map(|at| Tick(at.into())), local: c == 'l' };
        text.chars().map(one).collect()
    }

    fn ejected(text: &str, rules: Rules) -> Vec<usize> {
        let survey = survey(&seen(text), rules);
        assert_eq!(survey.usable.len() + survey.ejected.len(), text.len());
        survey.ejected
    }

    #[test]
    fn the_worst_are_ejected_up_to_the_maximum() {
        assert_eq!(ejected("....", RULES), [0; 0]);
        assert_eq!(ejected(".9.1", RULES), [1, 3]);
        assert_eq!(ejected("93.1", RULES), [1, 3], "the third is called, as the last that turned bad");
        assert_eq!(ejected("1", RULES), [0; 0], "half of one is none: there is nobody else to call");
        assert_eq!(ejected("1.", RULES), [0]);
        assert_eq!(ejected("12.", RULES), [0]);
        let all = Rules { max_ejected_percent: 100, panic_percent: 0, ..RULES };
        assert_eq!(ejected("12", all), [0, 1]);
    }

    #[test]
    fn with_too_few_good_ones_nobody_is_ejected() {
        assert_eq!(ejected("123.", RULES), [0, 1], "a quarter is good");
        assert_eq!(ejected("1234.", RULES), [0; 0], "a fifth is good: it would not bear all the calls");
        assert_eq!(ejected("1234", RULES), [0; 0], "it is more likely us or the network");
        assert_eq!(ejected("", RULES), [0; 0]);
    }

    #[test]
    fn the_callers_zone_is_enough_while_it_has_enough_good_ones() {
        let usable = |text: &str| survey(&seen(text), RULES).usable;
        assert_eq!(usable("l.l."), [0, 2]);
        assert_eq!(usable("l..."), [0, 1, 2, 3], "one is too few");
        assert_eq!(usable("...."), [0, 1, 2, 3]);
        let mut one_bad = seen("lll...");
        one_bad[0].bad_since = Some(Tick(1));
        assert_eq!(survey(&one_bad, RULES).usable, [1, 2]);
        one_bad[1].bad_since = Some(Tick(2));
        assert_eq!(survey(&one_bad, RULES).usable, [2, 3, 4, 5], "both bad ones of the zone are ejected");
        let none_needed = Rules { zone_at_least: 0, ..RULES };
        assert_eq!(survey(&seen("..."), none_needed).usable, [0, 1, 2], "an empty zone is never enough");
    }
}

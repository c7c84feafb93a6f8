//! What the shadow policy would have done, of all instances together, in a few words. Pure.

use std::collections::BTreeMap;

use fusebox_policy::wire::{ShadowKind, ShadowReport};

/// How many commands and methods the summary names.
const MAX_NAMED: usize = 3;

/// `find_user would have opened 3x, refused 12 of 4000 calls`; None if it would have let every call be.
pub fn summary<'a>(reports: impl IntoIterator<Item = &'a ShadowReport>) -> Option<String> {
    let mut all: BTreeMap<(&str, ShadowKind), Sum> = BTreeMap::new();
    for report in reports {
        all.entry((&report.name, report.kind)).or_default().add(report);
    }
    let mut told: Vec<String> = all.iter().filter_map(|((name, _), sum)| sum.told(name)).collect();
    let more = told.len().saturating_sub(MAX_NAMED);
    told.truncate(MAX_NAMED);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

#[derive(Default)]
struct Sum {
    calls: u64,
    opened: u64,
    /// Refused, limited, rate-limited, timed out.
    calls_of: [u64; 4],
}

impl Sum {
    fn add(&mut self, one: &ShadowReport) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.calls, one.calls);
        add(&mut self.opened, one.would_open);
        let calls_of = [one.would_refuse, one.would_limit, one.would_rate_limit, one.would_time_out];
        self.calls_of.iter_mut().zip(calls_of).for_each(|(sum, more)| add(sum, more));
    }

    /// None: it would have done nothing.
    fn told(&self, name: &str) -> Option<String> {
        let words = ["refused", "limited", "rate-limited", "timed out"].iter().zip(self.calls_of);
        let mut acts: Vec<String> =
            words.filter(|(_, n)| *n > 0).map(|(word, n)| format!("{word} {}", rounded(n))).collect();
        let of = if acts.is_empty() { "in" } else { "of" };
        if self.opened > 0 {
            acts.insert(0, format!("opened {}x", rounded(self.opened)));
        }
        let calls = rounded(self.calls);
        (!acts.is_empty()).then(|| format!("{name} would have {} {of} {calls} calls", acts.join(", ")))
    }
}

/// The first two digits: numbers that rise with every call would have the status written with every report.
fn rounded(n: u64) -> u64 {
    let unit = 10_u64.pow(n.checked_ilog10().unwrap_or_default().saturating_sub(1));
    n - n % unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, kind: ShadowKind, calls: u64, opened: u64, calls_of: [u64; 4]) -> ShadowReport {
        let [would_refuse, would_limit, would_rate_limit, would_time_out] = calls_of;
        ShadowReport {
            name: name.into(),
            kind,
            calls,
            would_open: opened,
            would_refuse,
            would_limit,
            would_rate_limit,
            would_time_out,
        }
    }

    #[test]
    fn all_instances_are_told_together() {
        let (command, method) = (ShadowKind::Command, ShadowKind::Method);
        let told = |all: &[ShadowReport]| summary(all).unwrap_or_default();
        let find = |calls, opened, refused| report("find_user", command, calls, opened, [refused, 0, 0, 0]);
        assert_eq!(
            told(&[find(3000, 1, 12), find(1000, 2, 0)]),
            "find_user would have opened 3x, refused 12 of 4000 calls"
        );
        assert_eq!(told(&[find(10, 1, 0)]), "find_user would have opened 1x in 10 calls");
        assert_eq!(
            told(&[report("a", command, 10, 0, [0, 1, 2, 3]), report("a", method, 10, 0, [0, 0, 1, 0])]),
            "a would have limited 1, rate-limited 2, timed out 3 of 10 calls; a would have rate-limited 1 of 10 \
             calls"
        );
        let many: Vec<_> =
            ["a", "b", "c", "d", "e"].iter().map(|name| report(name, method, 9, 0, [1, 0, 0, 0])).collect();
        assert!(told(&many).ends_with("c would have refused 1 of 9 calls; and 2 more"), "{}", told(&many));
    }

    #[test]
    fn what_lets_every_call_be_is_not_told() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[report("a", ShadowKind::Command, 100, 0, [0; 4])]), None);
    }

    #[test]
    fn numbers_have_two_digits() {
        for (n, wanted) in
            [(0, 0), (9, 9), (99, 99), (101, 100), (4199, 4100), (u64::MAX, 18_000_000_000_000_000_000)]
        {
            assert_eq!(rounded(n), wanted);
        }
        let told = |calls| summary(&[report("a", ShadowKind::Command, calls, 0, [1, 0, 0, 0])]);
        assert_eq!(told(4100), told(4199), "no write for as many calls");
    }
}

//! What the feed is to reach, and whether this run did.

use crate::bench::figure::Figures;
use crate::bench::judged::Bound::{AtLeast, AtMost};
use crate::bench::judged::{Judged, judge};

/// Every target against the figures.
pub fn evaluate(figures: &Figures) -> Vec<Judged> {
    let value = |case, subject| figures.value("B5", case, subject);
    let ours = |case| value(case, "fusebox");
    let by_bare = |case, bare| Some(ours(case)? / value(bare, "etcd-watch")?);
    let millis = |case| ours(case).map(|micros| micros / 1e3);
    [
        (
            "B5: put to first call, p50, by a bare watch beside the same load",
            AtMost(1.5),
            "times",
            by_bare("under-load-p50", "under-load-p50"),
        ),
        ("B5: the same, p99", AtMost(2.0), "times", by_bare("under-load-p99", "under-load-p99")),
        (
            "B5: put to first call, p50, by a bare watch beside nothing",
            AtMost(1.5),
            "times",
            by_bare("under-load-p50", "idle-p50"),
        ),
        ("B5: the same, p99", AtMost(2.0), "times", by_bare("under-load-p99", "idle-p99")),
        ("B5: put to first call, p50", AtMost(1.0), "ms", millis("under-load-p50")),
        ("B5: the same, p99", AtMost(2.0), "ms", millis("under-load-p99")),
        ("B5: calls that failed", AtMost(0.0), "", ours("under-load-failed")),
        ("B5: calls that showed two fields of two documents", AtMost(0.0), "", ours("under-load-torn")),
        ("B5: an older document after a newer one", AtMost(0.0), "times", ours("under-load-back")),
        ("B5: changes", AtLeast(999.0), "a second", ours("under-load-rate")),
    ]
    .map(|(what, bound, unit, measured)| judge(what, bound, unit, measured, None))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;

    #[test]
    fn targets_are_ratios_of_the_same_run_and_only_of_what_ran() {
        let figures = Figures::from_iter([
            ns("B5", "under-load-p50", "etcd-watch", 200.0),
            ns("B5", "under-load-p50", "fusebox", 320.0),
            ns("B5", "idle-p50", "etcd-watch", 320.0),
            ns("B5", "under-load-torn", "fusebox", 1.0),
        ]);
        let targets = evaluate(&figures);
        let measured: Vec<_> = targets.iter().map(|target| (target.measured, target.met)).collect();
        assert_eq!(measured[0], (Some(1.6), Some(false)));
        assert_eq!(measured[1], (None, None));
        assert_eq!(measured[2], (Some(1.0), Some(true)));
        assert_eq!(measured[4], (Some(0.32), Some(true)));
        assert_eq!(measured[7], (Some(1.0), Some(false)));
    }
}

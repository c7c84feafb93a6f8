//! What the channel is to reach, and whether this run did.

use crate::bench::figure::Figures;
use crate::bench::judged::Bound::{AtLeast, AtMost};
use crate::bench::judged::{Judged, judge};

/// Every target against the figures. Of what a call costs, the worst of all cases.
pub fn evaluate(figures: &Figures) -> Vec<Judged> {
    let worst = |subject: &str| {
        let cases = figures.all().iter().filter(|figure| figure.bench == "channel");
        cases.filter(|figure| figure.subject == subject).filter_map(|figure| figure.value).reduce(f64::max)
    };
    let churn = |case: &str| figures.value("churn", case, "fusebox");
    let millis = |case: &str| churn(case).map(|micros| micros / 1e3);
    let more = |name: &str| Some((churn(&format!("churn-{name}"))? - churn(&format!("still-{name}"))?) / 1e3);
    [
        (
            "channel: requests per core fewer than over fixed tonic channels, no policy",
            AtMost(5.0),
            "%",
            worst("fusebox-over-tonic"),
        ),
        (
            "channel: the same under the command's policy, fixed ones under its layer",
            AtMost(5.0),
            "%",
            worst("fusebox-policy-over-tonic-layer"),
        ),
        (
            "channel: the same with the command's layer around both",
            AtMost(5.0),
            "%",
            worst("fusebox-layer-over-tonic-layer"),
        ),
        ("churn: changes", AtLeast(99.0), "a second", churn("churn-changes")),
        ("churn: calls that failed", AtMost(0.0), "", churn("churn-failed")),
        ("churn: p99.9 more than while the list rests", AtMost(5.0), "ms", more("p99.9")),
        ("churn: the longest time without an answer", AtMost(50.0), "ms", millis("churn-gap")),
    ]
    .map(|(what, bound, unit, measured)| judge(what, bound, unit, measured, None))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;

    #[test]
    fn the_worst_case_counts_and_what_did_not_run_has_no_verdict() {
        let figures = Figures::from_iter([
            ns("channel", "1", "fusebox-over-tonic", 2.0),
            ns("channel", "4", "fusebox-over-tonic", 6.0),
            ns("channel", "4", "tonic", 100_000.0),
            ns("churn", "still-p99.9", "fusebox", 9000.0),
            ns("churn", "churn-p99.9", "fusebox", 12_000.0),
            ns("churn", "churn-gap", "fusebox", 60_000.0),
            ns("churn", "churn-failed", "tonic-balance", 3.0),
        ]);
        let targets = evaluate(&figures);
        let measured: Vec<_> = targets.iter().map(|target| (target.measured, target.met)).collect();
        let none = (None, None);
        let expected = [
            (Some(6.0), Some(false)),
            none,
            none,
            none,
            none,
            (Some(3.0), Some(true)),
            (Some(60.0), Some(false)),
        ];
        assert_eq!(measured, expected);
    }
}

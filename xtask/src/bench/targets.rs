//! What the library is to reach, and whether this run did.

use super::figure::Figures;
use super::judged::Bound::{AtLeast, AtMost};
use super::judged::{Judged, judge};

const TAX: &str = "Reload: what a thousand a second cost a call";
const P99: &str = "B10: p99 at half load over raw tonic's";

/// Every target against the figures.
pub fn evaluate(figures: &Figures) -> Vec<Judged> {
    let value = |bench, case, subject| figures.value(bench, case, subject);
    let net = |bench, case, subject| figures.net(figures.get(bench, case, subject)?);
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let less = |above: Option<f64>, below: Option<f64>| Some(above? - below?);
    let b1 = |subject| net("B1", "success", subject);
    let b2 = |subject| net("B2", "ready", subject);
    let allocs = |bench, case| figures.get(bench, case, "fusebox")?.allocs;
    let b10 = |case, subject| value("B10", case, subject);
    let ours = "fusebox";
    [
        ("B1: a breaker over the bare service", AtMost(8.0), "ns", b1(ours)),
        ("B1: its allocations", AtMost(0.0), "a call", allocs("B1", "success")),
        (
            "B1: tower-resilience's breaker by ours",
            AtLeast(30.0),
            "times",
            ratio(b1("tower-resilience"), b1(ours)),
        ),
        ("B2: the full stack over the bare service, ready at once", AtMost(25.0), "ns", b2(ours)),
        ("B2: its allocations", AtMost(0.0), "a call", allocs("B2", "ready")),
        ("B2: hystrix-go's Do by it", AtLeast(150.0), "times", ratio(b2("hystrix-go"), b2(ours))),
        (
            "B2: the full stack, the inner service pending once",
            AtMost(120.0),
            "ns",
            net("B2", "pending", ours),
        ),
        (
            "B3: two threads on one policy by one thread",
            AtMost(1.15),
            "times",
            ratio(value("B3", "two-threads", ours), value("B3", "one-thread", ours)),
        ),
        ("B4: outcomes lost", AtMost(0.0), "", value("B4", "lost", ours)),
        (
            "B4: calls between our trip and an exact count's",
            AtMost(64.0),
            "",
            value("B4", "trip-delay", ours),
        ),
        ("B4: calls at work above the limit", AtMost(0.0), "", value("B4", "over-admission", ours)),
        (TAX, AtMost(1.0), "ns", value("reload", "tax", ours)),
        (
            "B10: requests per second per core by raw tonic's",
            AtLeast(97.0),
            "%",
            ratio(b10("saturated", ours), b10("saturated", "baseline")).map(|ratio| 100.0 * ratio),
        ),
        (P99, AtMost(5.0), "us", less(b10("half-load-p99", ours), b10("half-load-p99", "baseline"))),
        (
            "B10: requests per second per core by grpc-go's with hystrix-go",
            AtLeast(3.0),
            "times",
            ratio(b10("saturated", ours), b10("saturated", "hystrix-go")),
        ),
        (
            "B10: goodput at ten times the capacity, calls of 1 ms",
            AtLeast(90.0),
            "%",
            b10("overload-1ms", ours),
        ),
    ]
    .map(|(what, bound, unit, measured)| {
        // A small difference of two figures is lost in their spreads.
        let spread =
            |bench, case, subject| figures.get(bench, case, subject).and_then(|figure| figure.spread);
        let noise = match what {
            P99 => spread("B10", "half-load-p99", "baseline"),
            TAX => spread("reload", "still", ours),
            _ => None,
        };
        judge(what, bound, unit, measured, noise)
    })
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;
    use crate::bench::judged::markdown;

    fn of<'a>(targets: &'a [Judged], what: &str) -> &'a Judged {
        targets.iter().find(|target| target.what.starts_with(what)).unwrap()
    }

    #[test]
    fn targets_are_judged_over_the_bare_service_and_only_by_what_ran() {
        let figures = Figures::from_iter([
            ns("B1", "success", "baseline", 1.0),
            ns("B1", "success", "fusebox", 9.0),
            ns("B1", "success", "tower-resilience", 201.0),
        ]);
        let targets = evaluate(&figures);
        let breaker = of(&targets, "B1: a breaker");
        assert_eq!((breaker.measured, breaker.met), (Some(8.0), Some(true)));
        let ratio = of(&targets, "B1: tower-resilience");
        assert_eq!((ratio.measured, ratio.met), (Some(25.0), Some(false)));
        assert_eq!(of(&targets, "B2: hystrix-go").met, None);
        let text = markdown(&targets);
        assert!(text.contains("| at least 30 times | 25.00 times | **missed** |"), "{text}");
        assert!(text.contains("| at most 0 | not run |  |"), "{text}");
    }
}

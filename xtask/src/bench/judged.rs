//! A target and whether a run reached it.

/// A target, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub what: &'static str,
    pub wanted: String,
    pub unit: &'static str,
    /// None: a row it needs was not run.
    pub measured: Option<f64>,
    pub met: Option<bool>,
    /// The rounds lie further apart than what is judged: no verdict.
    pub noisy: bool,
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};

/// What was wanted beside what was measured; `spread` is given where a difference may be lost in it.
pub fn judge(
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    measured: Option<f64>,
    spread: Option<f64>,
) -> Judged {
    let (wanted, met) = match bound {
        AtMost(most) => (format!("at most {most}"), measured.map(|measured| measured <= most)),
        AtLeast(least) => (format!("at least {least}"), measured.map(|measured| measured >= least)),
    };
    let noisy = matches!((bound, spread), (AtMost(most), Some(spread)) if spread > most);
    Judged { what, wanted, unit, measured, met: met.filter(|_| !noisy), noisy }
}

/// As a table.
pub fn markdown(targets: &[Judged]) -> String {
    let mut text = String::from("| Target | Wanted | Measured | |\n|---|---|---|---|\n");
    for target in targets {
        let measured = target
            .measured
            .map_or_else(|| "not run".to_owned(), |value| format!("{value:.2} {}", target.unit));
        let met = match target.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None if target.noisy => "lost in the noise",
            None => "",
        };
        let row = [target.what, &format!("{} {}", target.wanted, target.unit), &measured, met]
            .map(str::trim)
            .join(" | ");
        text.extend(["| ", &row, " |\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_smaller_than_the_spread_is_no_verdict() {
        let judged = judge("x", AtMost(1.0), "ns", Some(0.5), Some(3.0));
        assert_eq!((judged.met, judged.noisy), (None, true));
        assert!(markdown(&[judged]).contains("| 0.50 ns | lost in the noise |"));
        assert_eq!(judge("x", AtMost(1.0), "ns", Some(0.5), Some(0.2)).met, Some(true));
    }

    #[test]
    fn what_was_not_measured_is_not_run_and_no_verdict() {
        let judged = judge("x", AtLeast(2.0), "times", None, None);
        assert_eq!(judged.met, None);
        assert!(markdown(&[judged]).contains("| at least 2 times | not run |  |"));
    }
}

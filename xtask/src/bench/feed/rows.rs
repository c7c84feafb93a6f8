//! The rounds of all subjects as rows.

use super::round::Round;
use crate::bench::figure::{Figure, Figures};
use crate::bench::stats;

/// What the rounds come to.
#[derive(Clone, Copy)]
enum Over {
    /// The middle one, with its spread.
    Middle,
    /// The largest.
    Worst,
    /// All together: what must never happen must not in any.
    Sum,
}
use Over::{Middle, Sum, Worst};

/// Whose rows it stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    /// Those that call beside.
    Callers,
    /// Those whose calls see the documents.
    Readers,
}

type Row = (&'static str, &'static str, Over, Of, fn(&Round) -> Option<f64>);

const ROWS: [Row; 13] = [
    ("p50", "us", Middle, Of::All, |round| Some(round.latency.p50)),
    ("p99", "us", Middle, Of::All, |round| Some(round.latency.p99)),
    ("max", "us", Worst, Of::All, |round| Some(round.latency.max)),
    ("unseen", "changes", Sum, Of::All, |round| Some(round.latency.unseen.into())),
    ("back", "times", Sum, Of::All, |round| Some(round.latency.back.into())),
    ("failed", "calls", Sum, Of::Readers, |round| Some(round.told.failed)),
    ("torn", "calls", Sum, Of::Readers, |round| Some(round.told.torn)),
    ("torn-changes", "changes", Sum, Of::Readers, |round| Some(round.told.torn_changes)),
    ("calls", "calls", Sum, Of::Callers, |round| Some(round.told.calls)),
    ("rate", "puts/s", Middle, Of::All, |round| Some(round.latency.rate)),
    ("put-late-p99", "us", Middle, Of::All, |round| Some(round.latency.late_p99)),
    ("put-answered-p50", "us", Middle, Of::All, |round| Some(round.latency.ack_p50)),
    ("rss", "MiB", Middle, Of::All, |round| round.told.rss_kib.map(|kib| kib / 1024.0)),
];

/// Every row of every subject; of one that could not run, the one that says why.
pub fn figures(subjects: &[Figure], rounds: &[Vec<Round>]) -> Figures {
    let mut figures = Figures::default();
    for (subject, rounds) in subjects.iter().zip(rounds) {
        if subject.not_run.is_some() {
            figures.extend([Figure { case: format!("{}-p50", subject.case), ..subject.clone() }]);
            continue;
        }
        let of = match (subject.case.as_str(), subject.subject.starts_with("etcd-watch")) {
            ("idle", _) => Of::All,
            (_, true) => Of::Callers,
            (_, false) => Of::Readers,
        };
        let rows = ROWS.iter().filter(|(.., whose, _)| *whose as u8 <= of as u8);
        figures.extend(rows.map(|row| figure(subject, row, rounds)));
    }
    figures
}

fn figure(subject: &Figure, (name, unit, over, _, value): &Row, rounds: &[Round]) -> Figure {
    let values: Vec<_> = rounds.iter().filter_map(value).collect();
    let (value, spread) = match over {
        Middle => (stats::median(&values), stats::spread(&values)),
        Worst => (values.iter().copied().reduce(f64::max), None),
        Sum => (Some(values.iter().sum()), None),
    };
    Figure {
        case: format!("{}-{name}", subject.case),
        unit: (*unit).to_owned(),
        value,
        spread,
        ..subject.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::feed::latency::Latency;
    use crate::bench::feed::round::Told;

    fn subject(name: &str, case: &str) -> Figure {
        Figure { subject: name.into(), case: case.into(), bench: "B5".into(), ..Figure::default() }
    }

    #[test]
    fn the_middle_of_times_the_worst_of_worsts_and_the_sum_of_counts() {
        let round = |p50, max, torn| Round {
            latency: Latency { p50, max, ..Latency::default() },
            told: Told { torn, ..Told::default() },
        };
        let rounds = [round(3.0, 9.0, 1.0), round(1.0, 70.0, 0.0), round(2.0, 8.0, 2.0)];
        let figures = figures(&[subject("fusebox", "under-load")], &[rounds.to_vec()]);
        let value = |case| figures.value("B5", case, "fusebox");
        assert_eq!(value("under-load-p50"), Some(2.0));
        assert_eq!(value("under-load-max"), Some(70.0));
        assert_eq!(value("under-load-torn"), Some(3.0));
        assert_eq!(figures.get("B5", "under-load-p50", "fusebox").unwrap().spread, Some(2.0));
        assert_eq!(value("under-load-rss"), None, "it was not told");
    }

    #[test]
    fn a_bare_watch_has_no_calls_that_could_fail_and_one_that_died_has_no_figures() {
        let dead = Figure { not_run: Some("it ended".into()), ..subject("viper", "under-load") };
        let subjects = [subject("etcd-watch", "under-load"), subject("etcd-watch", "idle"), dead];
        let rounds = [vec![Round::default()], vec![Round::default()], vec![Round::default()]];
        let figures = figures(&subjects, &rounds);
        let has = |case, subject| figures.get("B5", case, subject).is_some();
        assert!(has("under-load-calls", "etcd-watch") && !has("under-load-failed", "etcd-watch"));
        assert!(has("idle-p99", "etcd-watch") && !has("idle-calls", "etcd-watch"));
        let viper: Vec<_> = figures.all().iter().filter(|figure| figure.subject == "viper").collect();
        assert_eq!((viper.len(), viper[0].value), (1, None));
    }
}

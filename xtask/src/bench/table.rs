//! The one table of all rows.

use super::figure::{Figure, Figures};

/// The columns, and whether a figure is what they hold.
const COLUMNS: [(&str, bool); 11] = [
    ("Benchmark", false),
    ("Case", false),
    ("Subject", false),
    ("Version", false),
    ("Window", false),
    ("Threads", true),
    ("Median", true),
    ("Over bare", true),
    ("Spread", true),
    ("Allocations", true),
    ("Instructions", true),
];

/// All rows, in order; a column that no row has anything for is left out.
pub fn markdown(figures: &Figures) -> String {
    let rows: Vec<_> = figures.all().iter().map(|figure| row(figure, figures.net(figure))).collect();
    let used: Vec<_> = (0..COLUMNS.len())
        .filter(|n| rows.iter().any(|row| !["", NOTHING].contains(&row[*n].as_str())))
        .collect();
    let line = |cells: &[&str]| {
        let cells: Vec<_> = used.iter().filter_map(|n| cells.get(*n).copied()).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = used.iter().map(|n| if COLUMNS[*n].1 { "--:|" } else { "---|" });
    let head = line(&COLUMNS.map(|(name, _)| name)) + "|" + &rule.collect::<String>() + "\n";
    rows.iter().fold(head, |text, row| text + &line(&row.each_ref().map(String::as_str)))
}

const NOTHING: &str = "-";

fn row(figure: &Figure, net: Option<f64>) -> [String; COLUMNS.len()] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    let unit = figure.unit.trim_end_matches("/op");
    let median = match (&figure.not_run, figure.value) {
        (Some(why), _) => format!("not run: {}", why.replace('|', "/")),
        (None, Some(value)) => format!("{} {unit}", number(value)),
        (None, None) => "not run".to_owned(),
    };
    [
        figure.bench.clone(),
        figure.case.clone(),
        figure.subject.clone(),
        version(&figure.version).to_owned(),
        figure.window.clone(),
        figure.threads.to_string(),
        median,
        or_dash(net.map(number)),
        or_dash(figure.spread.map(number)),
        or_dash(figure.allocs.map(number)),
        or_dash(figure.instructions.map(number)),
    ]
}

/// Three digits that matter; whole numbers above.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 || value.fract() == 0.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A Go pseudo-version by its commit.
fn version(version: &str) -> &str {
    match version.rsplit_once('-') {
        Some((before, commit)) if before.contains('-') && commit.len() == 12 => {
            commit.get(..7).unwrap_or(commit)
        }
        _ => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;

    #[test]
    fn a_row_states_everything() {
        let mut ours = ns("B1", "success", "fusebox", 8.123);
        (ours.version, ours.window) = ("0.1.0".into(), "time, 10 s".into());
        (ours.spread, ours.allocs, ours.instructions) = (Some(0.25), Some(0.0), Some(57.0));
        let figures = Figures::from_iter([ns("B1", "success", "baseline", 1.0), ours]);
        let text = markdown(&figures);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "| B1 | success | fusebox | 0.1.0 | time, 10 s | 1 | 8.12 ns | 7.12 | 0.25 | 0 | 57 |"
        );
        let columns = text.lines().map(|line| line.matches('|').count()).collect::<Vec<_>>();
        assert!(columns.iter().all(|count| *count == 12), "{columns:?}");
    }

    #[test]
    fn a_row_that_was_not_run_says_so_and_why() {
        let figure = Figure { not_run: Some("Go is missing".into()), ..Figure::default() };
        assert_eq!(row(&figure, None)[6..8], ["not run: Go is missing", "-"]);
        let text = markdown(&Figures::from_iter([figure]));
        assert!(text.starts_with("| Threads | Median |\n|--:|--:|\n"), "{text}");
    }

    #[test]
    fn versions_and_numbers_are_short() {
        assert_eq!(version("v0.0.0-20180502004556-fa1af6a1f4f5"), "fa1af6a");
        assert_eq!(version("v2.4.0"), "v2.4.0");
        let numbers = [0.0, 0.4567, 12.34, 135.3, 112_700.4].map(number);
        assert_eq!(numbers, ["0", "0.46", "12.3", "135", "112700"]);
    }
}

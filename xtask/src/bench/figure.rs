//! The figures of a run, each in one row.

use serde::{Deserialize, Serialize};

/// One row: what `--json` writes. A program's line of JSON is one with only its own fields filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub bench: String,
    pub case: String,
    /// `fusebox`, a library's name, or `baseline` (`baseline-go`) for the bare service.
    pub subject: String,
    pub version: String,
    pub threads: u32,
    /// The type of the breaker's window.
    pub window: String,
    /// Nanoseconds of one call, where that is what is measured.
    pub ns: Option<f64>,
    /// The largest less the smallest of the rounds, in the unit of `value`.
    pub spread: Option<f64>,
    /// Allocations of one call.
    pub allocs: Option<f64>,
    /// Instructions of one call.
    pub instructions: Option<f64>,
    pub unit: String,
    /// The median of the rounds.
    pub value: Option<f64>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// Of B10: what the program's `serve` is asked for.
    #[serde(skip_serializing)]
    pub server: Option<String>,
    /// Whether the Go program has it.
    #[serde(skip)]
    pub go: bool,
}

impl Figure {
    /// The arguments by which a program knows the row.
    pub fn row(&self) -> [&str; 3] {
        [&self.bench, &self.case, &self.subject]
    }

    /// Its bare service: Go's own for Go's libraries.
    pub fn baseline(&self) -> &'static str {
        if self.go { "baseline-go" } else { "baseline" }
    }
}

/// All rows of a run, in order.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    pub fn all(&self) -> &[Figure] {
        &self.0
    }

    pub fn extend(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.0.extend(figures);
    }

    pub fn get(&self, bench: &str, case: &str, subject: &str) -> Option<&Figure> {
        self.0.iter().find(|figure| figure.row() == [bench, case, subject])
    }

    pub fn value(&self, bench: &str, case: &str, subject: &str) -> Option<f64> {
        self.get(bench, case, subject)?.value
    }

    /// What a call costs more than the bare service's in the same case.
    pub fn net(&self, figure: &Figure) -> Option<f64> {
        if figure.subject == figure.baseline() {
            return None;
        }
        Some(figure.ns? - self.get(&figure.bench, &figure.case, figure.baseline())?.ns?)
    }
}

impl FromIterator<Figure> for Figures {
    fn from_iter<I: IntoIterator<Item = Figure>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A figure of nanoseconds.
    pub fn ns(bench: &str, case: &str, subject: &str, ns: f64) -> Figure {
        let [bench, case, subject] = [bench, case, subject].map(str::to_owned);
        Figure {
            go: subject.ends_with("-go"),
            unit: "ns/op".into(),
            ns: Some(ns),
            value: Some(ns),
            threads: 1,
            bench,
            case,
            subject,
            ..Figure::default()
        }
    }

    #[test]
    fn net_is_over_the_bare_service_of_its_language() {
        let figures = Figures::from_iter([
            ns("B1", "success", "baseline", 1.0),
            ns("B1", "success", "baseline-go", 2.0),
            ns("B1", "success", "fusebox", 9.0),
            ns("B1", "success", "hystrix-go", 4002.0),
        ]);
        let nets: Vec<_> = figures.all().iter().map(|figure| figures.net(figure)).collect();
        assert_eq!(nets, [None, None, Some(8.0), Some(4000.0)]);
    }

    #[test]
    fn a_programs_line_is_a_figure() {
        let line = r#"{"bench":"B1","case":"success","subject":"x","version":"1","threads":1,"window":"none","unit":"ns/op","not_run":"why"}"#;
        let figure: Figure = serde_json::from_str(line).unwrap();
        assert_eq!((figure.value, figure.not_run.as_deref()), (None, Some("why")));
    }
}
